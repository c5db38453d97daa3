package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"larder/store/storepb"
)

// TestCompareChunksIsTheContractsOrder compares compareChunks with a plain implementation of the
// rule: minimum time, maximum time, then for raw, count, sum, min, max and counter in turn: chunks
// with the part first, type ascending, data descending.
func TestCompareChunksIsTheContractsOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine: the race detector cannot find anything")
	}
	r := rand.New(rand.NewPCG(3, 4))
	random := func() storepb.WireChunk {
		c := storepb.WireChunk{MinTime: r.Int64N(2), MaxTime: r.Int64N(2)}
		for a := range 6 {
			if r.IntN(2) == 0 {
				c.Parts = append(c.Parts, storepb.WirePart{
					Aggr: byte(a),
					Type: byte(r.IntN(2)),
					Data: []byte(fmt.Sprint(r.IntN(3))),
				})
			}
		}
		return c
	}
	part := func(c *storepb.WireChunk, a int) *storepb.WirePart {
		i := slices.IndexFunc(c.Parts, func(p storepb.WirePart) bool { return int(p.Aggr) == a })
		if i < 0 {
			return nil
		}
		return &c.Parts[i]
	}
	want := func(a, b *storepb.WireChunk) int {
		if a.MinTime != b.MinTime {
			return int(a.MinTime - b.MinTime)
		}
		if a.MaxTime != b.MaxTime {
			return int(a.MaxTime - b.MaxTime)
		}
		for f := range 6 {
			p, q := part(a, f), part(b, f)
			switch {
			case p == nil && q == nil:
				continue
			case q == nil:
				return -1
			case p == nil:
				return 1
			case p.Type != q.Type:
				return int(p.Type) - int(q.Type)
			case string(p.Data) > string(q.Data):
				return -1
			case string(p.Data) < string(q.Data):
				return 1
			}
		}
		return 0
	}
	sign := func(n int) int { return min(max(n, -1), 1) }
	for range 200_000 {
		a, b := random(), random()
		if got, want := sign(compareChunks(&a, &b)), sign(want(&a, &b)); got != want {
			t.Fatalf("compareChunks(%+v, %+v) = %d, want %d", a, b, got, want)
		}
	}
}
