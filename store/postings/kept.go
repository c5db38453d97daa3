package postings

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"larder/internal/tsdbfmt"
	"larder/store/indexheader"
)

// kept is a result as requests share it. Pending matchers are places in the canonical order, which
// is the same for all requests with the same matchers.
//
// INVARIANT: refs are not written to, because requests share them.
type kept struct {
	refs    []uint32
	pending []int
	stats   Stats
	// touched is the size of the index pages that hold the lists. Every request is charged for
	// them, because limits must not depend on what a cache has.
	touched int64
}

// refBounds is the range [first, end) of references to series of a block.
type refBounds struct{ first, end uint64 }

func refRange(h *indexheader.Header) refBounds {
	toc := h.TOC()
	unit := uint64(tsdbfmt.SeriesOffset(h.IndexVersion(), 1))
	end := uint64(toc.SectionEnd(toc.Series, h.IndexSize()))
	return refBounds{first: uint64(toc.Series) / unit, end: min((end+unit-1)/unit, 1<<32)}
}

// Postings are kept as
//
//	Stats.Groups, Pending, Lists, ListBytes and MaxSeries, then bytes of index pages,
//	number of pending matchers, then the place of each in the canonical order,
//	number of references, then the first one, then the distance of each from the one before it,
//
// all of them uvarints. The identity in front of them covers the version of this encoding.

// appendKept appends k to dst. It grows dst by exactly what it writes, because a cache accounts for
// the length of a value.
func appendKept(dst []byte, k *kept) []byte {
	figures := append(
		make([]uint64, 0, 16), uint64(k.stats.Groups), uint64(k.stats.Pending),
		uint64(k.stats.Lists), uint64(k.stats.ListBytes), uint64(k.stats.MaxSeries),
		uint64(k.touched), uint64(len(k.pending)),
	)
	for _, i := range k.pending {
		figures = append(figures, uint64(i))
	}
	figures = append(figures, uint64(len(k.refs)))
	size := 0
	for _, n := range figures {
		size += uvarintSize(n)
	}
	last := uint32(0)
	for _, ref := range k.refs {
		size += uvarintSize(uint64(ref - last))
		last = ref
	}
	dst = slices.Grow(dst, size)
	for _, n := range figures {
		dst = binary.AppendUvarint(dst, n)
	}
	last = 0
	for _, ref := range k.refs {
		dst = binary.AppendUvarint(dst, uint64(ref-last))
		last = ref
	}
	return dst
}

// keptCount returns how many references a value claims to have, at most one for each of its bytes.
func keptCount(b []byte) int64 {
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		b = b[max(n, 0):]
		return v
	}
	const figures = 6
	for range figures {
		next()
	}
	for n := next(); n > 0 && len(b) > 0; n-- {
		next()
	}
	return int64(min(next(), uint64(len(b))))
}

// uvarintSize returns the bytes of a number as a uvarint.
func uvarintSize(n uint64) int { return (bits.Len64(n|1) + 6) / 7 }

// maxKeptFigure bounds the numbers in front of kept postings. No block reaches it.
const maxKeptFigure = 1 << 48

// decodeKept decodes what appendKept has written for a request with the given number of matchers.
// It does not trust b: ok is false unless these can be postings of a block with these bounds.
func decodeKept(b []byte, bounds refBounds, matchers int) (k kept, ok bool) {
	bad := false
	next := func() int64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > maxKeptFigure {
			bad, b = true, nil
			return 0
		}
		b = b[n:]
		return int64(v)
	}
	k.stats.Groups, k.stats.Pending, k.stats.Lists = int(next()), int(next()), int(next())
	k.stats.ListBytes, k.stats.MaxSeries, k.touched = next(), next(), next()
	for n := next(); n > 0 && !bad; n-- {
		i := next()
		if i >= int64(matchers) || len(k.pending) > 0 && int(i) <= k.pending[len(k.pending)-1] {
			return kept{}, false
		}
		k.pending = append(k.pending, int(i))
	}
	count := next()
	if bad || count > int64(len(b)) || k.stats.Groups > matchers ||
		k.stats.Pending > k.stats.Groups {
		return kept{}, false
	}
	if count == 0 {
		return k, len(b) == 0
	}
	k.refs = make([]uint32, count)
	ref := uint64(0)
	for i := range k.refs {
		if len(b) == 0 {
			return kept{}, false
		}
		delta := uint64(b[0])
		n := 1
		if delta >= 0x80 {
			if delta, n = binary.Uvarint(b); n <= 0 {
				return kept{}, false
			}
		}
		if delta == 0 && i > 0 || delta >= bounds.end {
			return kept{}, false
		}
		b = b[n:]
		ref += delta
		if i == 0 && ref < bounds.first || ref >= bounds.end {
			return kept{}, false
		}
		k.refs[i] = uint32(ref)
	}
	return k, len(b) == 0
}
