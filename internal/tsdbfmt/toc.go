package tsdbfmt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

const (
	// IndexHeaderSize is the size of an index file's header in bytes: magic and version.
	IndexHeaderSize = 5
	// TOCSize is the size of the table of contents in bytes. It ends an index file.
	TOCSize = 6*8 + crc32.Size

	indexMagic = 0xBAAAD700
)

// TOC is the table of contents of an index file: the byte offset of each section, 0 if a section is
// absent. Version is the index format version (1, 2 or 3) from the fifth byte of the file.
type TOC struct {
	Version           int
	Symbols           int64
	Series            int64
	LabelIndices      int64
	LabelIndicesTable int64
	Postings          int64
	PostingsTable     int64
}

// ParseTOC parses the table of contents of an index file of size bytes. head starts with the file's
// first IndexHeaderSize bytes, tail ends with its last TOCSize bytes. Every offset of the result is
// 0 or lies between them.
//
// INVARIANT: no checksum covers the version byte, alone in a block's index. An unknown version is
// an error.
func ParseTOC(head, tail []byte, size int64) (TOC, error) {
	if len(head) < IndexHeaderSize || len(tail) < TOCSize || size < IndexHeaderSize+TOCSize {
		return TOC{}, fmt.Errorf("%w: an index of %d bytes is too short for a table of contents",
			ErrCorrupt, size)
	}
	if m := binary.BigEndian.Uint32(head); m != indexMagic {
		return TOC{}, fmt.Errorf("%w: index magic at offset 0 is %08x", ErrCorrupt, m)
	}
	v := int(head[4])
	if v < 1 || v > 3 {
		return TOC{}, fmt.Errorf("%w: unknown index version %d at offset 4", ErrCorrupt, v)
	}
	b := tail[len(tail)-TOCSize:]
	body := b[:TOCSize-crc32.Size]
	want := binary.BigEndian.Uint32(b[len(body):])
	if got := crc32.Checksum(body, castagnoli); got != want {
		return TOC{}, fmt.Errorf(
			"%w: table of contents of the index, at offset %d, has checksum %08x, stored is %08x",
			ErrChecksum, size-TOCSize, got, want)
	}
	toc := TOC{Version: v}
	for i, p := range []*int64{
		&toc.Symbols, &toc.Series, &toc.LabelIndices, &toc.LabelIndicesTable, &toc.Postings,
		&toc.PostingsTable,
	} {
		off := binary.BigEndian.Uint64(body[8*i:])
		if off != 0 && (off < IndexHeaderSize || off > uint64(size-TOCSize)) {
			return TOC{}, fmt.Errorf(
				"%w: table of contents of the index, at offset %d: section %d starts at %d of %d bytes",
				ErrCorrupt, size-TOCSize, i, off, size,
			)
		}
		*p = int64(off)
	}
	return toc, nil
}

// SectionEnd returns the first byte after off at which something else begins in an index of size
// bytes: the nearest section behind off, or the table of contents. What begins at off ends there at
// SectionEnd returns an upper bound for the end of what starts at off in an index of size bytes:
// the start of the nearest section after off, or of the table of contents. Padding may lie in
// between.
func (t TOC) SectionEnd(off, size int64) int64 {
	end := size - TOCSize
	sections := [...]int64{t.Symbols, t.Series, t.LabelIndices, t.LabelIndicesTable, t.Postings,
		t.PostingsTable}
	for _, s := range sections {
		if s > off && s < end {
			end = s
		}
	}
	return end
}
