package block

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"larder/store/storepb"
)

// disordered returns segments of series with random labels, among them none at all, as a stream of
// a shard returns them: without labels no memory is there for them.
func disordered(r *rand.Rand) (segs []*Segment) {
	ref := uint64(8)
	for range 1 + r.IntN(12) {
		seg := &Segment{}
		names := []string{"", "", "a", "b"}[r.IntN(2)*2:]
		for range 1 + r.IntN(12) {
			if name := names[r.IntN(2)]; name != "" {
				seg.labels = storepb.AppendLabel(seg.labels, name, fmt.Sprint(r.IntN(40)))
			}
			seg.labelEnd = append(seg.labelEnd, uint32(len(seg.labels)))
			for range r.IntN(3) {
				seg.chunks.Append(ref, 0, 1, 0)
				ref += 100
			}
			seg.chunkEnd = append(seg.chunkEnd, uint32(seg.chunks.Len()))
		}
		segs = append(segs, seg)
	}
	return segs
}

// TestSorterNeedsNoMore checks that a sorter without further bytes returns every series once and in
// order, whatever their order was. Its segments are no larger than the limit.
func TestSorterNeedsNoMore(t *testing.T) {
	type series struct {
		Labels string
		Chunks []uint64
	}
	all := func(seg *Segment) (out []series) {
		for i := range seg.Len() {
			lo, hi := seg.ChunkRange(i)
			out = append(
				out, series{string(seg.Labels(i)), append([]uint64{}, seg.chunks.Ref[lo:hi]...)},
			)
		}
		return out
	}
	passes := 0
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 6))
		segs := disordered(r)
		var want, got []series
		largest := int64(0)
		same := map[string]int64{}
		for _, seg := range segs {
			want = append(want, all(seg)...)
			for i := range seg.Len() {
				n := seriesBytes(seg, i) + sortedRefBytes
				same[string(seg.Labels(i))] += n
				largest = max(largest, same[string(seg.Labels(i))])
			}
		}
		slices.SortStableFunc(want, func(a, b series) int {
			return storepb.CompareLabels([]byte(a.Labels), []byte(b.Labels))
		})
		refused := errors.New("refused")
		reserver := &testReserver{err: refused}
		// The series of one label set fit into the last quarter, or a pass would have to ask.
		c := newSeriesSorter(4*largest+r.Int64N(500), reserver, false)
		most := r.Int64N(400)
		for !c.complete {
			for _, seg := range segs {
				if err := c.add(seg); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if c.held > c.full() {
					t.Fatalf("seed %d: %d bytes are held, %d may be filled", seed, c.held, c.full())
				}
			}
			c.endPass()
			for {
				held := int64(0)
				seg, err := c.next(most, func(n int64) error { held = n; return nil })
				if err == io.EOF {
					break
				}
				if n := seg.Bytes(); n > held || seg.Len() > 1 && n > most {
					t.Fatalf("seed %d: a segment of %d bytes, %d reserved, the limit is %d",
						seed, n, held, most)
				}
				got = append(got, all(seg)...)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d, %d passes (-want +got):\n%s", seed, c.passes, diff)
		}
		passes = max(passes, c.passes)
	}
	if passes < 3 {
		t.Errorf("%d passes at most: too little was tested", passes)
	}
}
