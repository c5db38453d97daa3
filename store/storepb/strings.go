package storepb

import (
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"
)

// tagStrings is the tag of LabelNamesResponse.names and of LabelValuesResponse.values.
const tagStrings = 1<<3 | 2

// tagLabelHints is the tag of the hints of both responses.
const tagLabelHints = 3<<3 | 2

// StringSize returns the size of a string of n bytes as AppendString writes it.
func StringSize(n int) int { return 1 + protowire.SizeBytes(n) }

// AppendString appends a label name or value as a LabelNamesResponse or LabelValuesResponse carries
// it.
func AppendString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, tagStrings)
	if n := uint64(len(s)); n < 0x80 {
		dst = append(dst, byte(n))
	} else {
		dst = binary.AppendUvarint(dst, n)
	}
	return append(dst, s...)
}

// AppendShared appends a string as AppendString does, of which dst holds the beginning: its first
// bytes are those of dst[from:from+shared], the others are rest. It returns where the string begins
// in the result.
func AppendShared(dst []byte, from, shared int, rest []byte) (out []byte, at int) {
	dst = append(dst, tagStrings)
	if n := uint64(shared + len(rest)); n < 0x80 {
		dst = append(dst, byte(n))
	} else {
		dst = binary.AppendUvarint(dst, n)
	}
	at = len(dst)
	dst = append(dst, dst[from:from+shared]...)
	return append(dst, rest...), at
}

// NextString returns the first string of what AppendString wrote, and what follows it. b must not
// be empty.
func NextString(b []byte) (s, rest []byte) {
	n, w := uint64(b[1]), 1
	if n >= 0x80 {
		n, w = binary.Uvarint(b[1:])
	}
	end := 1 + w + int(n)
	return b[1+w : end : end], b[end:]
}

// AppendLabelHints appends the hints of a LabelNamesResponse or LabelValuesResponse: the ULIDs of
// the blocks that were queried, in a message whose full name is given.
func AppendLabelHints(dst []byte, name string, ids []string) []byte {
	const tagTypeURL, tagValue = 1<<3 | 2, 2<<3 | 2 // of google.protobuf.Any
	const tagBlock, tagID = 1<<3 | 2, 1<<3 | 2      // QueriedBlocks, Block.id
	url := "type.googleapis.com/" + name
	value := 0
	for _, id := range ids {
		value += fieldSize(fieldSize(len(id)))
	}
	size := fieldSize(len(url))
	if value > 0 {
		size += fieldSize(value)
	}
	dst = appendVarint(append(dst, tagLabelHints), uint64(size))
	dst = appendVarint(append(dst, tagTypeURL), uint64(len(url)))
	dst = append(dst, url...)
	if value == 0 {
		return dst
	}
	dst = appendVarint(append(dst, tagValue), uint64(value))
	for _, id := range ids {
		dst = appendVarint(append(dst, tagBlock), uint64(fieldSize(len(id))))
		dst = appendVarint(append(dst, tagID), uint64(len(id)))
		dst = append(dst, id...)
	}
	return dst
}
