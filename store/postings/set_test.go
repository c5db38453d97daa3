package postings

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// randomSet returns a set of about n references below limit.
func randomSet(rnd *rand.Rand, n, limit int) []uint32 {
	out := []uint32{}
	for range n {
		out = append(out, uint32(rnd.IntN(limit)))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestPostingsSetOperations(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	sizes := []int{0, 1, 2, 7, 30, 300, 4000}
	for range 400 {
		limit := 1 + rnd.IntN(8000)
		a := randomSet(rnd, sizes[rnd.IntN(len(sizes))], limit)
		b := randomSet(rnd, sizes[rnd.IntN(len(sizes))], limit)
		in := map[uint32]bool{}
		for _, v := range b {
			in[v] = true
		}
		both, only := []uint32{}, []uint32{}
		for _, v := range a {
			if in[v] {
				both = append(both, v)
			} else {
				only = append(only, v)
			}
		}
		keep := slices.Clone(b)
		got := append([]uint32{}, intersect(slices.Clone(a), b)...)
		if diff := cmp.Diff(both, got); diff != "" {
			t.Fatalf("%d and %d postings: intersect (-want +got):\n%s", len(a), len(b), diff)
		}
		got = append([]uint32{}, subtract(slices.Clone(a), b)...)
		if diff := cmp.Diff(only, got); diff != "" {
			t.Fatalf("%d and %d postings: subtract (-want +got):\n%s", len(a), len(b), diff)
		}
		if !slices.Equal(keep, b) {
			t.Fatal("the second set was written to")
		}
	}
}

func TestPostingsGallop(t *testing.T) {
	s := []uint32{2, 4, 4, 8, 16, 32, 33, 34}
	for n := range len(s) + 1 {
		for v := range uint32(40) {
			want, _ := slices.BinarySearch(s[:n], v)
			if got := gallop(s[:n], v); got != want {
				t.Fatalf("gallop(%v, %d) = %d, want %d", s[:n], v, got, want)
			}
		}
	}
}

func TestPostingsSort(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var s sorter
	f := func(n int, offset, limit uint32) {
		t.Helper()
		refs := make([]uint32, n)
		for i := range refs {
			refs[i] = offset + rnd.Uint32N(limit)
		}
		want := slices.Clone(refs)
		slices.Sort(want)
		want = slices.Compact(want)
		if diff := cmp.Diff(want, s.sort(refs)); diff != "" {
			t.Fatalf(
				"%d references in [%d, %d+%d) (-want +got):\n%s", n, offset, offset, limit, diff,
			)
		}
	}
	f(0, 0, 1)
	f(1, 5, 1)
	f(100, 1<<31, 200)                      // comparison
	f(radixMin, 0, bitmapSpread)            // bitmap of one word
	f(5000, 7, 100_000)                     // bitmap
	f(5000, 1<<32-100_001, 100_001)         // bitmap up to the last reference
	f(5000, 3, 1<<21)                       // two digits
	f(5000, 1<<30, 1<<31)                   // three digits
	f(5000, 0, 1<<32-1)                     // the whole range
	f(20_000, 1, 20_000*bitmapSpread-1)     // just dense enough
	f(20_000, 1, 20_000*(bitmapSpread+100)) // not dense enough
}
