package postings

import (
	"math/bits"
	"slices"
)

// Sets of postings are ascending slices without duplicates. The operations work in place: the first
// group of a query is decoded once and shrinks from there.

// gallopRatio is how many times longer one set must be so that searching it is faster than walking
// it: see BenchmarkIntersect.
const gallopRatio = 8

// intersect reduces a to the postings that are in b, too. It writes to a only.
func intersect(a, b []uint32) []uint32 {
	switch {
	case len(b) >= gallopRatio*len(a):
		out := a[:0]
		for _, v := range a {
			b = b[gallop(b, v):]
			if len(b) == 0 {
				break
			}
			if b[0] == v {
				out = append(out, v)
			}
		}
		return out
	case len(a) >= gallopRatio*len(b):
		out, rest := a[:0], a
		for _, v := range b {
			rest = rest[gallop(rest, v):]
			if len(rest) == 0 {
				break
			}
			// INVARIANT: out never grows beyond the postings of a that have been passed, because
			// rest must stay unwritten.
			if rest[0] == v {
				rest = rest[1:]
				out = append(out, v)
			}
		}
		return out
	}
	n := 0
	for i, j := 0, 0; i < len(a) && j < len(b); {
		x, y := a[i], b[j]
		// No branch predictor can tell which side is behind, therefore both move by results of
		// comparisons. Every step writes a[n], which counts only if both are equal. n is at most i,
		// so that nothing unread is lost.
		a[n] = x
		n += one(x == y)
		i += one(x <= y)
		j += one(y <= x)
	}
	return a[:n]
}

// one returns 1 if b is true, else 0. The compiler makes it a register move.
func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// subtract reduces a to the postings that are not in b. It writes to a only.
func subtract(a, b []uint32) []uint32 {
	switch {
	case len(a) == 0 || len(b) == 0:
		return a
	case len(b) >= gallopRatio*len(a):
		out := a[:0]
		for _, v := range a {
			b = b[gallop(b, v):]
			if len(b) == 0 || b[0] != v {
				out = append(out, v)
			}
		}
		return out
	case len(a) >= gallopRatio*len(b):
		n, rest := 0, a
		for _, v := range b {
			i := gallop(rest, v)
			n += copy(a[n:], rest[:i])
			rest = rest[i:]
			if len(rest) > 0 && rest[0] == v {
				rest = rest[1:]
			}
		}
		return a[:n+copy(a[n:], rest)]
	}
	n, i := 0, 0
	for j := 0; i < len(a) && j < len(b); {
		x, y := a[i], b[j]
		a[n] = x
		n += one(x < y)
		i += one(x <= y)
		j += one(y <= x)
	}
	return a[:n+copy(a[n:], a[i:])]
}

// gallop returns the index of the first element of s that is not less than v, len(s) if there is
// none. Its cost grows with the index, not with the length of s.
func gallop(s []uint32, v uint32) int {
	step := 1
	for step <= len(s) && s[step-1] < v {
		step *= 2
	}
	lo, hi := step/2, min(step, len(s))
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if s[mid] < v {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

const (
	// bitmapSpread is the largest number of possible references per reference for which sorting
	// uses a bitmap. The bitmap is then no larger than the references.
	bitmapSpread = 32
	// radixMin is the number of references from which a radix sort is faster than comparing.
	radixMin   = 512
	radixBits  = 11
	radixRange = 1 << radixBits
)

// sorter makes a set of the concatenated lists of a group. It does not merge them list by list,
// because a hundred thousand lists of ten postings would need a heap of that size, and a path of
// comparisons for each posting. A bitmap or a radix sort costs the same however many lists there
// are (BenchmarkSortRefs). Lists of one label name are disjoint; duplicates, which only an
// irregular block has, are removed.
type sorter struct {
	words []uint64
	tmp   []uint32
}

// sort orders refs in place and returns the set, which may be shorter.
func (s *sorter) sort(refs []uint32) []uint32 {
	ascending := true
	lo, hi := uint32(1<<32-1), uint32(0)
	prev := uint32(0)
	for i, v := range refs {
		ascending = ascending && (i == 0 || prev < v)
		prev, lo, hi = v, min(lo, v), max(hi, v)
	}
	switch {
	case ascending:
		// Series and the values of a label are sorted, therefore the lists of the first label names
		// of a block are a set already, and so is the list of one value.
		return refs
	case uint64(hi-lo) < bitmapSpread*uint64(len(refs)):
		return s.bitmap(refs, lo, hi)
	case len(refs) < radixMin:
		slices.Sort(refs)
		return slices.Compact(refs)
	default:
		return slices.Compact(s.radix(refs, lo, hi))
	}
}

func (s *sorter) bitmap(refs []uint32, lo, hi uint32) []uint32 {
	n := int(hi-lo)/64 + 1
	s.words = slices.Grow(s.words[:0], n)[:n]
	clear(s.words)
	for _, v := range refs {
		v -= lo
		s.words[v/64] |= 1 << (v % 64)
	}
	out := refs[:0]
	for i, w := range s.words {
		for at := lo + uint32(i)*64; w != 0; w &= w - 1 {
			out = append(out, at+uint32(bits.TrailingZeros64(w)))
		}
	}
	return out
}

func (s *sorter) radix(refs []uint32, lo, hi uint32) []uint32 {
	s.tmp = slices.Grow(s.tmp[:0], len(refs))[:len(refs)]
	src, dst := refs, s.tmp
	for shift := 0; shift < bits.Len32(hi-lo); shift += radixBits {
		var at [radixRange]int
		for _, v := range src {
			at[(v-lo)>>shift%radixRange]++
		}
		sum := 0
		for i, n := range at {
			at[i] = sum
			sum += n
		}
		for _, v := range src {
			d := (v - lo) >> shift % radixRange
			dst[at[d]] = v
			at[d]++
		}
		src, dst = dst, src
	}
	if &src[0] != &refs[0] {
		copy(refs, src)
	}
	return refs
}
