package tsdbfmt

// TOC is the table of contents of an index file: the byte offset of each of its sections, 0 for a section that is absent.
// Version is the index format version (1, 2 or 3), read from the fifth byte of the file.
type TOC struct {
	Version           int
	Symbols           int64
	Series            int64
	LabelIndices      int64
	LabelIndicesTable int64
	Postings          int64
	PostingsTable     int64
}
