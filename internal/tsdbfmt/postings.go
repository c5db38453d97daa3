package tsdbfmt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

// A posting list of an index file (V1, V2 and V3) is
//
//	len <4b> | content <len bytes> | crc32c(content) <4b>
//
// content is a count <4b> and that many series references <4b>, ascending. All numbers are big
// endian. See Prometheus's tsdb/docs/format/index.md.

const (
	postingsLenSize   = 4
	postingsCountSize = 4
	// postingsOverhead is the size of a posting list without its references.
	postingsOverhead = postingsLenSize + postingsCountSize + crc32.Size
	postingSize      = 4
	maxPostings      = (math.MaxUint32 - postingsCountSize) / postingSize
)

// MinPostingsSize is the size of the smallest posting list that a writer makes: one reference.
const MinPostingsSize = postingsOverhead + postingSize

// MaxPostingsCount returns the number of postings that a list of at most size bytes can hold.
func MaxPostingsCount(size int64) int64 {
	if size < postingsOverhead {
		return 0
	}
	return (size - postingsOverhead) / postingSize
}

// PostingsSize returns the size in bytes of a whole posting list, length prefix and checksum
// included, and the number of its postings. It needs the first eight bytes: it returns ErrShort for
// fewer, and ErrCorrupt if length and count contradict each other. It does not verify the checksum,
// so use the result only to decide how many bytes to read.
func PostingsSize(b []byte) (size int64, count int, err error) {
	if len(b) < postingsLenSize+postingsCountSize {
		return 0, 0, fmt.Errorf("posting list of %d bytes: %w", len(b), ErrShort)
	}
	n, k := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[postingsLenSize:])
	if k > maxPostings || n != postingsCountSize+k*postingSize {
		return 0, 0, fmt.Errorf("%w: posting list of %d bytes claims %d postings",
			ErrCorrupt, n, k)
	}
	return postingsLenSize + int64(n) + crc32.Size, int(k), nil
}

// AppendPostings appends the references of a posting list to dst. list starts with the length
// prefix and may be longer than the posting list. Length and checksum are verified first; on an
// error dst is returned unchanged.
func AppendPostings(dst []uint32, list []byte) ([]uint32, error) {
	if len(list) < postingsLenSize {
		return dst, fmt.Errorf("%w: posting list of %d bytes", ErrCorrupt, len(list))
	}
	n := int64(binary.BigEndian.Uint32(list))
	if n > int64(len(list))-postingsLenSize-crc32.Size {
		return dst, fmt.Errorf("%w: posting list claims %d bytes, %d are present", ErrCorrupt, n,
			len(list))
	}
	content, sum := list[postingsLenSize:postingsLenSize+n], list[postingsLenSize+n:]
	if want, got := binary.BigEndian.Uint32(sum), crc32.Checksum(content, castagnoli); got != want {
		return dst, fmt.Errorf("%w: posting list of %d bytes has checksum %08x, stored is %08x",
			ErrChecksum, n, got, want)
	}
	if _, _, err := PostingsSize(list); err != nil {
		return dst, err
	}
	refs := content[postingsCountSize:]
	at := len(dst)
	dst = append(dst, make([]uint32, len(refs)/postingSize)...)
	for i, out := 0, dst[at:]; i < len(out); i++ {
		out[i] = binary.BigEndian.Uint32(refs[i*postingSize:])
	}
	return dst, nil
}
