package catalog

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// TestOverlapping compares Overlapping with a look at every block.
func TestOverlapping(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		var blocks []*Block
		for i := range rng.IntN(20) {
			from := rng.Int64N(50)
			blocks = append(blocks, &Block{
				ID: ulid.ULID{byte(i)}, MinTime: from, MaxTime: from + 1 + rng.Int64N(30),
				Labels: labels.FromStrings("set", fmt.Sprint(rng.IntN(3))),
			})
		}
		v := NewView(blocks, true)
		minT := rng.Int64N(90) - 5
		maxT := minT + rng.Int64N(40) - 1
		var want, got []*Block
		for _, b := range v.Blocks {
			if b.MinTime <= maxT && b.MaxTime > minT {
				want = append(want, b)
			}
		}
		for b, set := range v.Overlapping(minT, maxT) {
			got = append(got, b)
			if !labels.Equal(set.Labels, b.Labels) || !slices.Contains(v.Sets, set) {
				t.Fatalf("a block with %s came with the set %s", b.Labels, set.Labels)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("[%d, %d]: got %v, want %v of %v", minT, maxT, got, want, v.Blocks)
		}
	}
}
