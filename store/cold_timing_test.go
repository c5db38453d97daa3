package store_test

import (
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"larder/benchmarks/dataset"
	"larder/store/block"
	"larder/store/indexheader"
	"larder/store/storepb"
)

// BenchmarkFirstQueriesOfSmallBlocks starts a gateway with 500 small blocks and an empty disk. The
// first byte of each ranged read takes 20 ms. While headers are built in the background, it sends
// 100 sequential queries for one metric and two hours.
func BenchmarkFirstQueriesOfSmallBlocks(b *testing.B) {
	layout := dataset.ManyBlocks500(1)
	dir := benchBucket(b, layout)
	var all []time.Duration
	for b.Loop() {
		b.StopTimer()
		g := startGateway(b, dir, gatewayOptions{})
		counts, _ := g.bucket.take()
		if counts["index"] > 0 {
			b.Fatalf("%d index reads before the first query", counts["index"])
		}
		g.bucket.setOnRead(func(_ string, _, _ int64, body io.ReadCloser) (io.ReadCloser, error) {
			// the benchmark measures how many of these delays are sequential
			<-time.After(20 * time.Millisecond)
			return body, nil
		})
		var srcs []indexheader.Source
		for _, m := range g.Catalog.View().Blocks {
			srcs = append(srcs, block.Source(m))
		}
		g.Headers.Prefetch(srcs)
		b.StartTimer()
		r := rand.New(rand.NewPCG(1, 1))
		for range 100 {
			at := layout.Blocks[r.IntN(len(layout.Blocks))].MinTime
			start := time.Now()
			a, err := g.query(context.Background(), &storepb.SeriesRequest{
				MinTime: at, MaxTime: at + 2*3_600_000 - 1, ResponseBatchSize: 64,
				Matchers: []*storepb.LabelMatcher{{Name: "__name__", Value: "up"}},
			})
			if err != nil {
				b.Fatal(err)
			}
			if len(a.series) == 0 {
				b.Fatal("no series")
			}
			all = append(all, time.Since(start))
		}
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
}
