package postings

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/index"
)

// BenchmarkSortRefs compares ways to make a set of disjoint lists; sorter chooses by its results.
// "spread" is the number of possible references per reference: about 10 if a group covers a whole
// block (an entry of 160 bytes, references of 16), more if it covers a part.
func BenchmarkSortRefs(b *testing.B) {
	ways := []struct {
		name string
		run  func(s *sorter, refs []uint32, lo, hi uint32)
	}{
		{"bitmap", func(s *sorter, refs []uint32, lo, hi uint32) { s.bitmap(refs, lo, hi) }},
		{"radix", func(s *sorter, refs []uint32, lo, hi uint32) { s.radix(refs, lo, hi) }},
		{"compare", func(_ *sorter, refs []uint32, _, _ uint32) { slices.Sort(refs) }},
		{"chosen", func(s *sorter, refs []uint32, _, _ uint32) { s.sort(refs) }},
	}
	for _, n := range []int{200, 2_000, 100_000} {
		for _, spread := range []int{10, 64, 1000} {
			for _, lists := range []int{n / 50, n} {
				refs := disjointLists(n, n*spread, lists)
				flat := slices.Concat(refs...)
				lo, hi := slices.Min(flat), slices.Max(flat)
				for _, w := range ways {
					b.Run(
						fmt.Sprintf("n=%d/spread=%d/lists=%d/%s", n, spread, lists, w.name),
						func(b *testing.B) {
							var s sorter
							work := make([]uint32, len(flat))
							b.ReportAllocs()
							for b.Loop() {
								copy(work, flat)
								w.run(&s, work, lo, hi)
							}
						},
					)
				}
				b.Run(
					fmt.Sprintf("n=%d/spread=%d/lists=%d/heap", n, spread, lists),
					func(b *testing.B) {
						wide := make([][]storage.SeriesRef, len(refs))
						for i, l := range refs {
							for _, v := range l {
								wide[i] = append(wide[i], storage.SeriesRef(v))
							}
						}
						b.ReportAllocs()
						for b.Loop() {
							ps := make([]index.Postings, len(wide))
							for i, l := range wide {
								ps[i] = index.NewListPostings(l)
							}
							for p := index.Merge(context.Background(), ps...); p.Next(); {
							}
						}
					},
				)
			}
		}
	}
}

// disjointLists deals about n references below limit out to lists.
func disjointLists(n, limit, lists int) [][]uint32 {
	rnd := rand.New(rand.NewPCG(5, 6))
	out := make([][]uint32, lists)
	for _, v := range randomSet(rnd, n, limit) {
		i := rnd.IntN(lists)
		out[i] = append(out[i], v)
	}
	return slices.DeleteFunc(out, func(l []uint32) bool { return len(l) == 0 })
}

func BenchmarkIntersect(b *testing.B) {
	rnd := rand.New(rand.NewPCG(7, 8))
	large := randomSet(rnd, 1_000_000, 10_000_000)
	for _, ratio := range []int{1, 4, 8, 16, 100, 10_000} {
		small := randomSet(rnd, len(large)/ratio, 10_000_000)
		for _, op := range []struct {
			name string
			run  func(a, b []uint32) []uint32
		}{{"intersect", intersect}, {"subtract", subtract}} {
			b.Run(fmt.Sprintf("ratio=%d/%s", ratio, op.name), func(b *testing.B) {
				work := make([]uint32, len(small))
				for b.Loop() {
					copy(work, small)
					op.run(work, large)
				}
			})
		}
	}
}
