package main

import (
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
)

// printCosts measures the cost of operations. All values are one slice, so that only the cache is
// measured.
func printCosts(w io.Writer) error {
	const maxBytes, held = 256 << 20, 20_000 // two thirds of it
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "ns (allocations) per\thit\thit, %d at once\tmiss\tset into a full cache\t\n",
		runtime.GOMAXPROCS(0))
	for _, cand := range candidates() {
		value := make([]byte, pageSize)
		c := cand.make(maxBytes)
		for key := range uint64(held) {
			// Twice, with a read in between, because candidates admit differently.
			c.Set(key, value)
			c.Get(key)
			c.Set(key, value)
		}
		c.settle()
		of := func(op func(i uint64)) string {
			r := testing.Benchmark(func(b *testing.B) {
				b.ReportAllocs()
				for i := range b.N {
					op(uint64(i))
				}
			})
			return fmt.Sprintf("%.0f (%d)", float64(r.T.Nanoseconds())/float64(r.N),
				r.AllocsPerOp())
		}
		hit := of(func(i uint64) { c.Get(i % held) })
		var start atomic.Uint64
		parallel := testing.Benchmark(func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for i := start.Add(7919); pb.Next(); i++ {
					c.Get(i % held)
				}
			})
		})
		miss := of(func(i uint64) { c.Get(1<<40 + i) })
		next := uint64(1 << 41) // keys that no run repeats
		set := of(func(uint64) { c.Set(next, value); next++ })
		c.close()
		fmt.Fprintf(tw, "%s\t%s\t%.0f\t%s\t%s\t\n", cand.name, hit,
			float64(parallel.T.Nanoseconds())/float64(parallel.N), miss, set)
	}
	return tw.Flush()
}

// printBurst sets 100,000 pages, each with memory of its own, from eight goroutines. It prints the
// live heap at each pause and at the end.
func printBurst(w io.Writer) error {
	const pages, setters, stops, maxBytes = 100_000, 8, 50, 64 << 20
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "of %d MiB\tlive at most\tin the end\tpages held\t\n", maxBytes>>20)
	for _, cand := range candidates() {
		before := liveHeap()
		c := cand.make(maxBytes)
		var most uint64
		for stop := range stops {
			var wg sync.WaitGroup
			for s := range setters {
				wg.Go(func() {
					for i := stop*pages/stops + s; i < (stop+1)*pages/stops; i += setters {
						// Set twice, so that candidates that refuse a value at first hold some.
						for range 2 {
							if _, ok := c.Get(uint64(i)); !ok {
								c.Set(uint64(i), make([]byte, pageSize))
							}
						}
					}
				})
			}
			wg.Wait()
			most = max(most, liveHeap())
		}
		c.settle()
		after := liveHeap()
		held := 0
		for i := range uint64(pages) {
			if _, ok := c.Get(i); ok {
				held++
			}
		}
		c.close()
		share := func(n uint64) string {
			return fmt.Sprintf("%.3f", (float64(n)-float64(before))/maxBytes)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t\n", cand.name, share(most), share(after), held)
	}
	return tw.Flush()
}

// liveHeap returns the size of the heap after a garbage collection.
func liveHeap() uint64 {
	runtime.GC()
	runtime.GC() // what a sync.Pool drops in the first collection is freed in the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
