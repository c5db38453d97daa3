package block

import (
	"errors"
	"io"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"larder/store/catalog"
)

// BenchmarkStream decodes 20,000 series of 22 labels from cached pages into segments: all of them,
// without their chunks, and those of a matcher that is checked on each series.
func BenchmarkStream(b *testing.B) {
	const series = 20_000
	blk, _ := openStreamBlock(
		b, writeStreamIndex(b, wideSeries(series)), 16<<10, catalog.Block{NumSeries: series})
	f := func(name string, want int, m *labels.Matcher, lazy, skipChunks bool) {
		p := planStream(b, blk, []*labels.Matcher{m}, lazy)
		b.Cleanup(p.Close)
		o := StreamOptions{MaxTime: math.MaxInt64, RunBytes: 1 << 20, SkipChunks: skipChunks}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				s := p.Stream(b.Context(), o)
				for {
					seg, err := s.Next()
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						b.Fatal(err)
					}
					n += seg.Len()
				}
				s.Close()
				if n != want {
					b.Fatalf("%d series, want %d", n, want)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/series, "ns/series")
		})
	}
	f("whole", series, everything(), false, false)
	f("labels", series, everything(), false, true)
	f("checked", series/10, labels.MustNewMatcher(labels.MatchEqual, "tenth", "3"), true, false)
}
