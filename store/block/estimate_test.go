package block

import (
	"context"
	"errors"
	"io"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"larder/store/catalog"
)

// chunkTime is the length of a chunk of withChunks, two hours.
const chunkTime = 7_200_000

// withChunks gives each series n chunks.
func withChunks(series []streamSeries, n int) []streamSeries {
	for i := range series {
		s := &series[i]
		s.metas, s.length = nil, nil
		for c := range n {
			off := uint64(8 + 200*(i*n+c))
			s.metas = append(s.metas, chunks.Meta{
				Ref:     chunks.ChunkRef(off),
				MinTime: int64(c) * chunkTime, MaxTime: int64(c+1)*chunkTime - 1,
			})
		}
	}
	return series
}

// TestStreamsOfNoChunksHoldWhatIsEstimated compares what streams need to decode with what is
// estimated. The estimate may be twice as much, and includes tables that are not measured.
func TestStreamsOfNoChunksHoldWhatIsEstimated(t *testing.T) {
	const n, runBytes, tables = 20_000, 1 << 20, streamOverhead + 4<<10
	lazily := []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "tenth", "[0-5]")}
	for _, perSeries := range []int{1, 100} {
		b, _ := openStreamBlock(
			t, writeStreamIndex(t, withChunks(wideSeries(n), perSeries)), 8<<10,
			catalog.Block{
				NumSeries: n, NumChunks: uint64(n * perSeries),
				MaxTime: int64(perSeries) * chunkTime,
			},
		)
		f := func(name string, collect Collect, lazy bool) {
			t.Helper()
			ms := []*labels.Matcher{everything()}
			if lazy {
				ms = lazily
			}
			p := planStream(t, b, ms, lazy)
			defer p.Close()
			p.unordered = collect != (Collect{})
			var held testReserver
			opts := StreamOptions{
				MaxTime: math.MaxInt64, SkipChunks: true, Collect: collect, RunBytes: runBytes,
				Reserver: &held,
			}
			with := opts
			with.SkipChunks, with.Collect = false, Collect{}
			less := p.StreamBytes(with) - p.StreamBytes(opts)
			s := p.Stream(context.Background(), opts).(*Stream)
			defer s.Close()
			estimate := s.estimate
			s.estimate = 0 // all is reserved where it is needed
			for {
				_, err := s.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			t.Logf(
				"%d chunks, %s: needs %d bytes, estimated %d, %d less than with chunks", perSeries,
				name, held.most, estimate, less,
			)
			if estimate < held.most || estimate > 2*held.most+tables || less <= 0 {
				t.Errorf(
					"%d chunks, %s: a stream needs %d bytes, estimated %d, %d less than with them",
					perSeries, name, held.most, estimate, less,
				)
			}
		}
		f("series", Collect{}, false)
		f("label names", Collect{Names: true}, false)
		f("label names of a lazy plan", Collect{Names: true}, true)
		f("few values", Collect{Label: "tenth"}, false)
		f("a value of each series", Collect{Label: "a"}, false)
		f("a value of each series of a lazy plan", Collect{Label: "a"}, true)
		f("values of no series", Collect{Label: "absent"}, false)
	}
}
