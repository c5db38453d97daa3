package catalog

import (
	"slices"
	"sort"
)

// span is the closed range [from, to] of milliseconds.
type span struct{ from, to int64 }

// Choose appends to dst the blocks of set that a request for the closed range [mint, maxt] reads,
// and returns dst. A block is read if its half-open range [MinTime, MaxTime) meets that range. The
// coarsest resolution up to maxResolution comes first; the gaps between its blocks are filled with
// the next finer one, and so on. A resolution coarser than maxResolution is never used, even if
// nothing else has data. A maxResolution below 5 minutes, negative ones included, means raw.
//
// Every block is chosen once, even if it fills two gaps. A range that a chosen block covers is not
// filled again, even if blocks of one resolution contain one another. The appended blocks are
// sorted by MinTime, MaxTime, ID. If dst has the capacity, nothing is allocated until a level has
// more than 16 gaps.
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

// fill appends to dst every block of one level that meets any of the gaps, and to open the parts of
// the gaps that these blocks do not cover.
// INVARIANT: gaps are sorted and disjoint, and so is open.
func (s *Set) fill(level int, gaps []span, dst []*Block, open []span) ([]*Block, []span) {
	blocks, reach := s.ByResolution[level], s.reach[level]
	// taken is the end of the blocks that are in dst already. A block that meets two gaps starts
	// before the second one and was added for the first.
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

// meetsEarlier reports whether a block meets a gap before the given start and was chosen for that.
func (s *Set) meetsEarlier(b *Block, gaps []span, before int64) bool {
	i := sort.Search(len(gaps), func(i int) bool { return gaps[i].to >= b.MinTime })
	return i < len(gaps) && gaps[i].from < before && gaps[i].from < b.MaxTime
}
