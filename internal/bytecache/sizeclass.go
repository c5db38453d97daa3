package bytecache

import (
	"math"
	"runtime/metrics"
	"slices"
)

// sizeClasses are the sizes of Go's allocator, ascending. It rounds a request up to one of them, by
// up to an eighth and more, and above the largest to whole pages of its own. A cache that used the
// length of a value as its cost would exceed its limit.
type sizeClasses []int64

// heapPage is the unit of sizes above all classes.
const heapPage = 8 << 10

// newSizeClasses reads the classes from the runtime: they are the upper bounds of its histogram of
// allocations by size.
func newSizeClasses() sizeClasses {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs-by-size:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		// This runtime has no histogram: sizes are rounded up to heapPage, which accounts for too
		// much rather than too little.
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

// round returns the bytes that the allocator uses for one allocation of n bytes.
func (c sizeClasses) round(n int64) int64 {
	if n <= 0 {
		return 0
	}
	if at, _ := slices.BinarySearch(c, n); at < len(c) {
		return c[at]
	}
	return (n + heapPage - 1) / heapPage * heapPage
}
