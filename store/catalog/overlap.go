package catalog

import (
	"iter"
	"sort"
)

// Overlapping returns the blocks that overlap the closed range [minT, maxT], in the order of
// v.Blocks, each with its external label set.
func (v *View) Overlapping(minT, maxT int64) iter.Seq2[*Block, *Set] {
	return func(yield func(*Block, *Set) bool) {
		// The first block that ends behind minT, and the first that begins behind maxT.
		from := sort.Search(len(v.reach), func(i int) bool { return v.reach[i] > minT })
		to := sort.Search(len(v.Blocks), func(i int) bool { return v.Blocks[i].MinTime > maxT })
		for i := from; i < to; i++ {
			if b := v.Blocks[i]; b.MaxTime > minT && !yield(b, v.sets[i]) {
				return
			}
		}
	}
}
