package store_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"larder/benchmarks/dataset"
	"larder/store/storepb"
)

// heapSink measures the live heap while an answer is sent.
type heapSink struct {
	sink
	start  time.Time
	first  time.Duration
	frames int
	every  int
	peak   uint64
}

func (s *heapSink) SendMsg(m any) error {
	if s.frames == 0 {
		s.first = time.Since(s.start)
	}
	if s.frames++; s.frames%s.every == 0 {
		s.peak = max(s.peak, liveHeap())
	}
	return s.sink.SendMsg(m)
}

func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkSeriesHeap reports by how much one request for a whole metric increases the live heap
// with warm caches, and the time to its first frame.
func BenchmarkSeriesHeap(b *testing.B) {
	for _, layout := range []dataset.Layout{dataset.Bench50k(1), dataset.Bench500k(1)} {
		b.Run(layout.Name, func(b *testing.B) {
			g := startGateway(b, benchBucket(b, layout),
				gatewayOptions{indexBytes: 512 << 20, chunkBytes: 512 << 20})
			run := func(every int) *heapSink {
				s := &heapSink{
					sink:  sink{ctx: context.Background()},
					start: time.Now(),
					every: every,
				}
				if err := g.Server.Series(wholeMetric(64), s); err != nil {
					b.Fatal(err)
				}
				return s
			}
			warm := run(1 << 30)
			before := liveHeap()
			var peak uint64
			var first time.Duration
			for b.Loop() {
				peak = max(peak, run(max(warm.frames/50, 1)).peak)
				first = max(first, run(1<<30).first)
			}
			b.ReportMetric(float64(int64(peak)-int64(before))/(1<<20), "extra-MiB")
			b.ReportMetric(float64(first.Microseconds())/1000, "first-frame-ms")
		})
	}
}

var _ storepb.Store_SeriesServer = (*heapSink)(nil)
