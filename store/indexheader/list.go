package indexheader

// List is where one posting list lies in a block's index: the byte range [Off, End), from its
// length prefix to at least its checksum. The zero List means that there is none.
//
// End is an upper bound: the start of the next entry or section. The list's own length field
// decides where it really ends.
type List struct {
	Off, End int64
}
