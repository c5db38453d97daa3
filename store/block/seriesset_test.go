package block

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"larder/internal/tsdbfmt"
)

// syntheticSegment makes a segment of n series with up to most chunks each, whose times are in
// order or not.
func syntheticSegment(r *rand.Rand, n, most int, ordered bool) *Segment {
	seg := &Segment{}
	ref := uint64(8)
	for i := range n {
		seg.labels = fmt.Appendf(seg.labels, "series %d;", i)
		seg.labelEnd = append(seg.labelEnd, uint32(len(seg.labels)))
		at := r.Int64N(500)
		for range 1 + r.IntN(most) {
			span := r.Int64N(50)
			seg.chunks.Append(ref, at, at+span, uint32(r.IntN(100)))
			ref += 100
			if ordered {
				at += span + 1 + r.Int64N(50)
			} else {
				at += r.Int64N(120) - 40
			}
		}
		seg.chunkEnd = append(seg.chunkEnd, uint32(seg.chunks.Len()))
	}
	return seg
}

// TestPartsOfSegments compares a request's part of a segment with the plain rule: chunks up to the
// first that begins after the range, without those that end before it.
func TestPartsOfSegments(t *testing.T) {
	type series struct {
		Labels string
		Chunks tsdbfmt.ChunkMetas
	}
	whole, holes := 0, 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 3))
		s := newSetSegment(syntheticSegment(r, 1+r.IntN(30), 1+r.IntN(40), seed%2 == 0), 0)
		o := StreamOptions{MinTime: r.Int64N(1500) - 200, SkipChunks: r.IntN(5) == 0}
		o.MaxTime = o.MinTime + r.Int64N(1500)
		if r.IntN(8) == 0 {
			o.MinTime, o.MaxTime = -100, 1<<40
		}
		kept := func(labels []byte) bool { return labelsHash(labels)%3 > 0 }
		if r.IntN(3) == 0 {
			o.Keep = kept
		}
		var want []series
		matched, chunks := 0, 0
		for i := range s.Len() {
			x := series{Labels: string(s.Labels(i))}
			lo, hi := s.ChunkRange(i)
			last := lo - 1
			for k := lo; k < hi && s.chunks.Min[k] <= o.MaxTime; k++ {
				if s.chunks.Max[k] >= o.MinTime {
					if x.Chunks.Len() > 0 && last != k-1 {
						holes++
					}
					last = k
					x.Chunks.AppendRange(&s.chunks, k, k+1)
				}
			}
			if x.Chunks.Len() == 0 {
				continue
			}
			matched++
			if o.Keep != nil && !kept(s.Labels(i)) {
				continue
			}
			if o.SkipChunks {
				x.Chunks = tsdbfmt.ChunkMetas{}
			}
			chunks += x.Chunks.Len()
			want = append(want, x)
		}
		p := s.part(&o)
		var got []series
		if p.seg != nil {
			if p.seg == s.Segment {
				whole++
			}
			for i := range p.seg.Len() {
				x := series{Labels: string(p.seg.Labels(i))}
				if lo, hi := p.seg.ChunkRange(i); lo < hi {
					x.Chunks.AppendRange(p.seg.Chunks(), lo, hi)
				}
				got = append(got, x)
			}
			if n := r.IntN(p.seg.Len()); string(p.seg.after(n).Labels(0)) != got[n].Labels {
				t.Errorf(
					"seed %d: the series from number %d on begin with %q", seed, n,
					p.seg.after(n).Labels(0),
				)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d, %+v (-want +got):\n%s", seed, o, diff)
		}
		if p.matched != matched || !o.SkipChunks && p.chunks != chunks {
			t.Fatalf(
				"seed %d: %d series and %d chunks, want %d and %d", seed, p.matched, p.chunks,
				matched, chunks,
			)
		}
	}
	if whole < 10 || holes < 100 {
		t.Errorf("%d whole segments, %d series with chunks that are not adjacent: the test covers "+
			"too little", whole, holes)
	}
}
