package indexheader

// List is the place of a posting list in a block's index: the byte range [Off, End), from its
// length prefix to at least its checksum. The zero List is no list.
//
// End is an upper bound: the start of the next entry or section. The list's own length field has
// its exact end.
type List struct {
	Off, End int64
}
