package postings

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"larder/internal/tsdbfmt"
	"larder/store/indexheader"
)

// keptPostings are expanded postings as they are shared by requests: pending matchers by their
// places in the canonical order, which all requests for the same matchers have in common.
//
// INVARIANT: refs are never written to once they are here.
type keptPostings struct {
	refs    []uint32
	pending []int
	stats   Stats
	// touched are the bytes of the index pages that finding them took. Every request is charged for
	// them, as if it had read them itself: what is kept must not decide about a limit.
	touched int64
}

// refBounds are what references of a block's series lie between: [first, end).
type refBounds struct{ first, end uint64 }

func refRange(h *indexheader.Header) refBounds {
	toc := h.TOC()
	unit := uint64(tsdbfmt.SeriesOffset(h.IndexVersion(), 1))
	end := uint64(toc.SectionEnd(toc.Series, h.IndexSize()))
	return refBounds{first: uint64(toc.Series) / unit, end: min((end+unit-1)/unit, 1<<32)}
}

// Expanded postings are kept as
//
//	label names with matchers, of these pending ones, lists, bytes of the lists, upper bound of the postings, bytes of index pages,
//	number of pending matchers, each one's place in the canonical order,
//	number of references, the first one, and what each of the others adds to the one before it
//
// all of them uvarints. What precedes them is the identity, which has the version.

// appendPostings appends k to dst. It makes room for what it writes and no more: a cache accounts
// for the length of a value.
func appendPostings(dst []byte, k *keptPostings) []byte {
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

// keptCount returns how many references a value says that it has, which are at most as many as it
// has bytes.
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

// uvarintSize returns how many bytes a number takes as an uvarint.
func uvarintSize(n uint64) int { return (bits.Len64(n|1) + 6) / 7 }

// maxKeptFigure bounds the figures of kept postings: beyond it they are not what a block can come
// to.
const maxKeptFigure = 1 << 48

// decodePostings reads what appendPostings has written for a request of so many matchers. It trusts
// nothing: ok is false for whatever cannot be the postings of a block with such references.
func decodePostings(b []byte, bounds refBounds, matchers int) (k keptPostings, ok bool) {
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
			return keptPostings{}, false
		}
		k.pending = append(k.pending, int(i))
	}
	count := next()
	if bad || count > int64(len(b)) || k.stats.Groups > matchers ||
		k.stats.Pending > k.stats.Groups {
		return keptPostings{}, false
	}
	if count == 0 {
		return k, len(b) == 0
	}
	k.refs = make([]uint32, count)
	ref := uint64(0)
	for i := range k.refs {
		if len(b) == 0 {
			return keptPostings{}, false
		}
		delta := uint64(b[0])
		n := 1
		if delta >= 0x80 {
			if delta, n = binary.Uvarint(b); n <= 0 {
				return keptPostings{}, false
			}
		}
		if delta == 0 && i > 0 || delta >= bounds.end {
			return keptPostings{}, false
		}
		b = b[n:]
		ref += delta
		if i == 0 && ref < bounds.first || ref >= bounds.end {
			return keptPostings{}, false
		}
		k.refs[i] = uint32(ref)
	}
	return k, len(b) == 0
}
