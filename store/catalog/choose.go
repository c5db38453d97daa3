package catalog

import (
	"slices"
	"sort"
)

// span is the closed range [from, to] of milliseconds.
type span struct{ from, to int64 }

// Choose appends to dst the blocks of set that a request for the closed range [mint, maxt] reads,
// and returns it. A block is read if its half-open range [MinTime, MaxTime) meets the request's.
// The coarsest resolution up to maxResolution comes first; what its blocks leave open is filled
// with the next finer one, and so on. A coarser resolution is never taken in, even where nothing
// else has data. A maxResolution below 5 minutes, negative ones included, means raw.
//
// Every block is chosen once, even where one block fills two gaps, and a range that some chosen
// block covers is not filled again, even where blocks of one resolution contain one another. What
// was appended is sorted by MinTime, MaxTime, ID. With room in dst nothing is allocated until a
// level has more than 16 gaps.
func (v *View) Choose(set *Set, mint, maxt, maxResolution int64, dst []*Block) []*Block {
	if mint > maxt {
		return dst
	}
	level := 0
	for level+1 < len(resolutions) && resolutions[level+1] <= maxResolution {
		level++
	}
	var (
		first   = len(dst)
		scratch [2][16]span
		gaps    = append(scratch[0][:0], span{mint, maxt})
		next    = scratch[1][:0]
	)
	for ; level >= 0 && len(gaps) > 0; level-- {
		dst, next = set.fill(level, gaps, dst, next[:0])
		gaps, next = next, gaps
	}
	slices.SortFunc(dst[first:], compareBlocks)
	return dst
}

// fill appends to dst every block of one level that meets any of the gaps, and to open what these
// blocks leave of them.
// INVARIANT: gaps are sorted and disjoint, and so is open.
func (s *Set) fill(level int, gaps []span, dst []*Block, open []span) ([]*Block, []span) {
	blocks, reach := s.ByResolution[level], s.reach[level]
	// taken is the end of the blocks already in dst: a block that meets two gaps starts before the
	// second, and is in dst since the first.
	taken := 0
	for _, gap := range gaps {
		i := sort.Search(len(blocks), func(i int) bool { return reach[i] > gap.from })
		from := gap.from
		covered := false
		for ; i < len(blocks) && blocks[i].MinTime <= gap.to; i++ {
			b := blocks[i]
			if b.MaxTime <= gap.from {
				continue
			}
			if i >= taken || !s.meetsEarlier(b, gaps, gap.from) {
				dst = append(dst, b)
			}
			if b.MinTime > from {
				open = append(open, span{from, b.MinTime - 1})
			}
			from = max(from, b.MaxTime)
			if from > gap.to {
				covered = true
			}
		}
		taken = max(taken, i)
		if !covered {
			open = append(open, span{from, gap.to})
		}
	}
	return dst, open
}

// meetsEarlier reports whether a block meets a gap that lies before the given start: then it is
// chosen already.
func (s *Set) meetsEarlier(b *Block, gaps []span, before int64) bool {
	i := sort.Search(len(gaps), func(i int) bool { return gaps[i].to >= b.MinTime })
	return i < len(gaps) && gaps[i].from < before && gaps[i].from < b.MaxTime
}
