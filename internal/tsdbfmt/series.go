package tsdbfmt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A series entry of an index file (V1, V2 and V3) is
//
//	len <uvarint> | content <len bytes> | crc32c(content) <4b>
//
// content is the label count, that many (name, value) symbol references, the chunk count and the
// chunk metas. See Prometheus's tsdb/docs/format/index.md.

// maxSeriesEntry is the maximum length of a series entry's content. A longer length is corruption,
// and never a reason to read.
const maxSeriesEntry = 64 << 20

// SeriesAlign is the alignment of series entries in index formats V2 and V3. Posting references are
// offsets divided by it.
const SeriesAlign = 16

// SeriesOffset returns the byte offset in the index of the series entry of posting ref.
func SeriesOffset(indexVersion int, ref uint32) int64 {
	if indexVersion == 1 {
		return int64(ref)
	}
	return int64(ref) * SeriesAlign
}

// NextSeriesOffset returns the offset of the series entry after one that ends at end.
func NextSeriesOffset(indexVersion int, end int64) int64 {
	if indexVersion == 1 {
		return end
	}
	return (end + SeriesAlign - 1) / SeriesAlign * SeriesAlign
}

// SeriesEntrySize returns the size in bytes of a whole series entry, length prefix and checksum
// included, from its first bytes. It returns ErrShort if the prefix is cut, and ErrCorrupt if it is
// not a valid length.
func SeriesEntrySize(b []byte) (int, error) {
	n, w := binary.Uvarint(b)
	switch {
	case w == 0 && len(b) < binary.MaxVarintLen64:
		return 0, ErrShort
	case w <= 0 || n > maxSeriesEntry:
		return 0, fmt.Errorf("%w: series entry length", ErrCorrupt)
	}
	return w + int(n) + crc32.Size, nil
}

// SeriesContent verifies the checksum of b, which is exactly one series entry, and returns its
// content. The content aliases b.
func SeriesContent(b []byte) ([]byte, error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > maxSeriesEntry || w+int(n)+crc32.Size != len(b) {
		return nil, fmt.Errorf("%w: series entry of %d bytes", ErrCorrupt, len(b))
	}
	content := b[w : w+int(n)]
	if crc32.Checksum(content, castagnoli) != binary.BigEndian.Uint32(b[w+int(n):]) {
		return nil, fmt.Errorf("%w: series entry", ErrChecksum)
	}
	return content, nil
}

// AppendSeriesLabels appends the (name, value) symbol references of a series to dst, flat, and
// returns the rest of the content.
func AppendSeriesLabels(dst []uint32, content []byte) (refs []uint32, rest []byte, err error) {
	k, w := uvarint(content)
	if w <= 0 || k > uint64(len(content))/2 {
		return dst, nil, fmt.Errorf("%w: label count of a series entry", ErrCorrupt)
	}
	b := content[w:]
	for range 2 * k {
		// Most references take one to three bytes. This loop runs twice per label of every series
		// of an answer.
		v, w := uvarint(b)
		if w <= 0 || v > 1<<32-1 {
			return dst, nil, fmt.Errorf("%w: symbol reference of a series entry", ErrCorrupt)
		}
		dst = append(dst, uint32(v))
		b = b[w:]
	}
	return dst, b, nil
}

// uvarint is binary.Uvarint with the short cases first.
func uvarint(b []byte) (uint64, int) {
	if len(b) >= 3 {
		if b[0] < 0x80 {
			return uint64(b[0]), 1
		}
		if b[1] < 0x80 {
			return uint64(b[0]&0x7f) | uint64(b[1])<<7, 2
		}
		if b[2] < 0x80 {
			return uint64(b[0]&0x7f) | uint64(b[1]&0x7f)<<7 | uint64(b[2])<<14, 3
		}
	}
	return binary.Uvarint(b)
}

// ChunkMetas is a list of chunk metas as a struct of arrays.
type ChunkMetas struct {
	// Ref is the chunk reference: file << 32 | byte offset in the file.
	Ref []uint64
	// Min and Max are the times of the first and the last sample, in milliseconds.
	Min, Max []int64
	// Bound is an upper bound of the record's length in bytes, 0 if none is known. It comes from
	// the next reference in the index and only decides how much is read; the record contains its
	// own length.
	Bound []uint32
}

// Len returns the number of chunks.
func (m *ChunkMetas) Len() int { return len(m.Ref) }

// Reset empties the list, keeping its memory.
func (m *ChunkMetas) Reset() {
	m.Ref, m.Min, m.Max, m.Bound = m.Ref[:0], m.Min[:0], m.Max[:0], m.Bound[:0]
}

// Append appends one chunk.
func (m *ChunkMetas) Append(ref uint64, minT, maxT int64, bound uint32) {
	m.Ref = append(m.Ref, ref)
	m.Min = append(m.Min, minT)
	m.Max = append(m.Max, maxT)
	m.Bound = append(m.Bound, bound)
}

// AppendRange appends chunks [lo, hi) of src.
func (m *ChunkMetas) AppendRange(src *ChunkMetas, lo, hi int) {
	m.Ref = append(m.Ref, src.Ref[lo:hi]...)
	m.Min = append(m.Min, src.Min[lo:hi]...)
	m.Max = append(m.Max, src.Max[lo:hi]...)
	m.Bound = append(m.Bound, src.Bound[lo:hi]...)
}

// ChunkBound returns the distance from ref to next as an upper bound of the length of the chunk
// record at ref. It returns 0 if next is not after ref in the same file.
func ChunkBound(ref, next uint64) uint32 {
	if next>>32 == ref>>32 && next > ref {
		return uint32(next - ref)
	}
	return 0
}

// AppendChunkMetas appends the chunks of a series that overlap the closed range [minT, maxT] to
// dst. b is the rest that AppendSeriesLabels returned. It stops at the first chunk that starts
// after maxT, same as Thanos. Without a dst it stops at the first chunk in range, and lastKept says
// whether there is one.
//
// It returns the reference of the entry's first chunk, kept or not (0 and false for a series
// without chunks), and whether the entry's last chunk was kept, so that the next entry in the index
// can bound it.
func AppendChunkMetas(
	dst *ChunkMetas, b []byte, minT, maxT int64,
) (first uint64, some, lastKept bool, err error) {
	k, w := uvarint(b)
	if w <= 0 || k > uint64(len(b))/3 {
		return 0, false, false, fmt.Errorf("%w: chunk count of a series entry", ErrCorrupt)
	}
	if k == 0 {
		return 0, false, false, nil
	}
	b = b[w:]
	bad := func(i uint64) error {
		return fmt.Errorf("%w: meta of chunk %d of a series entry", ErrCorrupt, i)
	}

	t0, w0 := binary.Varint(b)
	if w0 <= 0 {
		return 0, false, false, bad(0)
	}
	d, w1 := uvarint(b[w0:])
	if w1 <= 0 {
		return 0, false, false, bad(0)
	}
	ref, w2 := uvarint(b[w0+w1:])
	if w2 <= 0 {
		return 0, false, false, bad(0)
	}
	b = b[w0+w1+w2:]
	first = ref
	lo, hi := t0, t0+int64(d)
	for i := uint64(0); ; i++ {
		lastKept = false
		if lo > maxT {
			return first, true, false, nil
		}
		if hi >= minT {
			if dst == nil {
				return first, true, true, nil
			}
			dst.Append(ref, lo, hi, 0)
			lastKept = true
		}
		if i+1 == k {
			return first, true, lastKept, nil
		}
		gap, w0 := uvarint(b)
		if w0 <= 0 {
			return 0, false, false, bad(i + 1)
		}
		span, w1 := uvarint(b[w0:])
		if w1 <= 0 {
			return 0, false, false, bad(i + 1)
		}
		delta, w2 := binary.Varint(b[w0+w1:])
		if w2 <= 0 {
			return 0, false, false, bad(i + 1)
		}
		b = b[w0+w1+w2:]
		next := ref + uint64(delta)
		if lastKept {
			dst.Bound[len(dst.Bound)-1] = ChunkBound(ref, next)
		}
		ref = next
		lo = hi + int64(gap)
		hi = lo + int64(span)
	}
}

// PeekFirstChunk returns the reference of the first chunk of the series entry that starts at b. b
// may contain only a part of the entry, and the checksum is not verified: use the result only as a
// bound.
func PeekFirstChunk(b []byte) (ref uint64, ok bool) {
	_, w := uvarint(b)
	if w <= 0 {
		return 0, false
	}
	b = b[w:]
	k, w := uvarint(b)
	if w <= 0 || k > uint64(len(b)) {
		return 0, false
	}
	b = b[w:]
	for range 2 * k {
		if _, w = uvarint(b); w <= 0 {
			return 0, false
		}
		b = b[w:]
	}
	n, w := uvarint(b)
	if w <= 0 || n == 0 {
		return 0, false
	}
	b = b[w:]
	for range 2 {
		// The first time is a zig-zag varint, which has the width of a uvarint.
		if _, w = uvarint(b); w <= 0 {
			return 0, false
		}
		b = b[w:]
	}
	ref, w = uvarint(b)
	return ref, w > 0
}
