package block

import (
	"fmt"
	"testing"
)

// BenchmarkSetHit reads all segments of a kept set of 50,000 series with two chunks each: over all
// time, over half of it, which is one chunk of each series, and over one day of two weeks.
func BenchmarkSetHit(b *testing.B) {
	f := func(name string, chunks int, minT, maxT int64) {
		const series = 50_000
		set := &seriesSet{postings: series}
		for from := 0; from < series; from += segmentSeries {
			seg := &Segment{labels: make([]byte, 0, 300*segmentSeries)}
			for i := range min(segmentSeries, series-from) {
				seg.labels = fmt.Appendf(seg.labels, "%0290d", from+i)
				seg.labelEnd = append(seg.labelEnd, uint32(len(seg.labels)))
				for c := range chunks {
					seg.chunks.Append(uint64(i*100+c), int64(c*100), int64(c*100+99), 400)
				}
				seg.chunkEnd = append(seg.chunkEnd, uint32(seg.chunks.Len()))
			}
			set.segments = append(set.segments, newSetSegment(seg, 0))
		}
		p := &Plan{set: set}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n, metas := 0, 0
				s := p.Stream(
					b.Context(),
					StreamOptions{
						MinTime:  minT,
						MaxTime:  maxT,
						OnChunks: func(n int) error { metas += n; return nil },
					},
				)
				for {
					seg, err := s.Next()
					if err != nil {
						break
					}
					n += seg.Len()
				}
				s.Close()
				if n != series || metas == 0 {
					b.Fatalf("%d series, %d chunks", n, metas)
				}
			}
		})
	}
	f("whole", 2, 0, 200)
	f("narrow", 2, 120, 150)
	f("day of two weeks", 112, 1000, 1800)
}
