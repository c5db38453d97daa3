package bytecache

import (
	"math"
	"runtime/metrics"
	"slices"
)

// sizeClasses are the sizes that Go's allocator has, ascending: what is asked
// of it is rounded up to one of them, by up to an eighth and more, and beyond the
// largest to whole pages of its own. A cache that took a value's length for its
// cost would be larger than its size.
type sizeClasses []int64

// heapPage is the unit of what is larger than all classes.
const heapPage = 8 << 10

// newSizeClasses asks the runtime for them: they are the upper bounds of the
// histogram that it keeps of allocations by size.
func newSizeClasses() sizeClasses {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs-by-size:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		// a runtime without it: sizes are rounded to heapPage, too much rather than too little
		return nil
	}
	var c sizeClasses
	for _, above := range sample[0].Value.Float64Histogram().Buckets { // the next larger integer
		if above > 1 && !math.IsInf(above, 1) {
			c = append(c, int64(above)-1)
		}
	}
	return c
}

// round returns what n bytes take that were allocated at once.
func (c sizeClasses) round(n int64) int64 {
	if n <= 0 {
		return 0
	}
	if at, _ := slices.BinarySearch(c, n); at < len(c) {
		return c[at]
	}
	return (n + heapPage - 1) / heapPage * heapPage
}
