package store_test

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"larder/benchmarks/dataset"
	"larder/store"
	"larder/store/storepb"
)

// texts returns the series of an answer as text, with hashes of chunk data.
func (a *answer) texts() []string {
	var out []string
	for _, s := range a.series {
		text := seriesLabels(s).String()
		for _, c := range s.Chunks {
			text += fmt.Sprintf(" [%d,%d", c.MinTime, c.MaxTime)
			for _, p := range []*storepb.Chunk{c.Raw, c.Count, c.Sum, c.Min, c.Max, c.Counter} {
				text += fmt.Sprintf(" %v:%d:%x", p.GetType(), len(p.GetData()), p.GetHash())
			}
			text += "]"
		}
		out = append(out, text)
	}
	return out
}

// randomRequest returns a request for some of the metrics in a random time range.
func randomRequest(r *rand.Rand, metrics []string, minT, maxT int64) *storepb.SeriesRequest {
	req := &storepb.SeriesRequest{
		MinTime: minT + r.Int64N(
			maxT-minT,
		), ResponseBatchSize: []int64{0, 1, 7, 64, 1 << 40}[r.IntN(5)],
		MaxResolutionWindow: []int64{0, 300_000, 3_600_000, math.MaxInt64}[r.IntN(4)],
		SkipChunks:          r.IntN(6) == 0,
		Aggregates: [][]storepb.Aggr{nil, {storepb.Aggr_COUNT, storepb.Aggr_SUM},
			{storepb.Aggr_COUNTER}, {storepb.Aggr_RAW}}[r.IntN(4)],
	}
	req.MaxTime = req.MinTime + r.Int64N(maxT-minT)
	if r.IntN(4) == 0 {
		req.MinTime, req.MaxTime = math.MinInt64, math.MaxInt64
	}
	if r.IntN(2) == 0 {
		req.WithoutReplicaLabels = []string{"replica"}
	}
	name := metrics[r.IntN(len(metrics))]
	req.Matchers = []*storepb.LabelMatcher{{Name: "__name__", Value: name}}
	switch r.IntN(4) {
	case 0:
		req.Matchers[0] = &storepb.LabelMatcher{
			Type:  storepb.LabelMatcher_RE,
			Name:  "__name__",
			Value: name[:len(name)/2] + ".*",
		}
	case 1:
		req.Matchers = append(req.Matchers,
			&storepb.LabelMatcher{Type: storepb.LabelMatcher_NRE, Name: "pod", Value: ".*[13579]"})
	case 2:
		req.Matchers = append(req.Matchers,
			&storepb.LabelMatcher{Type: storepb.LabelMatcher_NEQ, Name: "instance"})
	}
	return req
}

// demoBucket writes the blocks of the demo. It returns their folder and their time range.
func demoBucket(t *testing.T, seed uint64) (dir string, minT, maxT int64) {
	t.Helper()
	dir = t.TempDir()
	metas, err := dataset.Demo(seed, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)).
		Write(context.Background(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	minT, maxT = math.MaxInt64, math.MinInt64
	for _, m := range metas {
		minT, maxT = min(minT, m.MinTime), max(maxT, m.MaxTime)
	}
	return dir, minT, maxT
}

// TestAnswersAgree sends the same requests in ways that must not change the answer: cold, warm,
// without caches, with other page sizes and batches, in shards and with a limit.
func TestAnswersAgree(t *testing.T) {
	dir, minT, maxT := demoBucket(t, 3)
	ctx := context.Background()
	first := startGateway(t, dir, gatewayOptions{})
	uncached := startGateway(t, dir,
		gatewayOptions{indexBytes: -1, chunkBytes: -1, postingsBytes: -1, pageSize: 512})
	names, err := first.client.LabelValues(ctx,
		&storepb.LabelValuesRequest{Label: "__name__", Start: math.MinInt64, End: math.MaxInt64})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(g *gateway, req *storepb.SeriesRequest) []string {
		t.Helper()
		a, err := g.query(ctx, req)
		if err != nil {
			t.Fatalf("%v: %v", req, err)
		}
		return a.texts()
	}
	r := rand.New(rand.NewPCG(11, 12))
	series, requests := 0, 24
	if testing.Short() {
		requests = 3
	}
	for range requests {
		req := randomRequest(r, names.Values, minT, maxT)
		want := ask(first, req)
		series += len(want)
		other := func(what string, g *gateway, change func(*storepb.SeriesRequest)) {
			t.Helper()
			x := proto.Clone(req).(*storepb.SeriesRequest)
			if change != nil {
				change(x)
			}
			if diff := gocmp.Diff(want, ask(g, x)); diff != "" {
				t.Fatalf("%v, %s (-want +got):\n%s", req, what, diff)
			}
		}
		other("warm", first, nil)
		other("without caches", uncached, nil)
		other("other batches", first, func(x *storepb.SeriesRequest) { x.ResponseBatchSize = 3 })
		if n := len(want); n > 0 {
			limit := 1 + r.IntN(n)
			x := proto.Clone(req).(*storepb.SeriesRequest)
			x.Limit = int64(limit)
			if diff := gocmp.Diff(want[:limit], ask(first, x)); diff != "" {
				t.Fatalf("%v, limit %d (-want +got):\n%s", req, limit, diff)
			}
			other("limit above", first, func(x *storepb.SeriesRequest) { x.Limit = int64(n) + 1 })
			other("negative limit", first, func(x *storepb.SeriesRequest) { x.Limit = -5 })
		}
		var union []string
		shards := int64(2 + r.IntN(3))
		by, on := r.IntN(2) == 0, []string{"pod", "instance", "replica"}[:1+r.IntN(3)]
		for i := range shards {
			x := proto.Clone(req).(*storepb.SeriesRequest)
			x.ShardInfo = &storepb.ShardInfo{ShardIndex: i, TotalShards: shards, By: by, Labels: on}
			shard := ask(first, x)
			for _, s := range shard {
				if _, ok := slices.BinarySearch(sortedTexts(want), s); !ok {
					t.Fatalf("%v: shard %d has a series that the whole answer lacks: %s", req, i, s)
				}
			}
			union = append(union, shard...)
		}
		if diff := gocmp.Diff(sortedTexts(want), sortedTexts(union)); diff != "" {
			t.Fatalf("%v: union of shards (-want +got):\n%s", req, diff)
		}
	}
	if series < 400 {
		t.Errorf("the test compares only %d series", series)
	}

	t.Run("side by side", func(t *testing.T) {
		for range 2 {
			req := randomRequest(r, names.Values, minT, maxT)
			want := ask(first, req)
			fresh := startGateway(t, dir,
				gatewayOptions{server: func(o *store.Options) { o.Allowance.Bytes = 24 << 20 }})
			var g errgroup.Group
			for range 16 {
				g.Go(func() error {
					a, err := fresh.query(ctx, req)
					if err != nil {
						return err
					}
					if diff := gocmp.Diff(want, a.texts()); diff != "" {
						return fmt.Errorf("(-want +got):\n%s", diff)
					}
					return nil
				})
			}
			if err := g.Wait(); err != nil {
				t.Fatalf("%v: %v", req, err)
			}
			if n := fresh.inUse(t); n != 0 {
				t.Errorf("%v bytes of the allowance are still reserved", n)
			}
		}
	})
}

func sortedTexts(texts []string) []string {
	return slices.SortedFunc(slices.Values(texts),
		func(a, b string) int { return cmp.Compare(a, b) })
}

// metric returns the value of a gauge or counter of the gateway whose labels have the given values.
func (g *gateway) metric(t testing.TB, name string, values ...string) float64 {
	t.Helper()
	families, err := g.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			var have []string
			for _, l := range m.Label {
				have = append(have, l.GetValue())
			}
			if slices.Equal(have, values) {
				return m.GetGauge().
					GetValue() +
					m.GetCounter().
						GetValue() +
					m.GetHistogram().
						GetSampleSum()
			}
		}
	}
	t.Fatalf("no metric %s %v", name, values)
	return 0
}

// inUse returns the reserved bytes of the request allowance.
func (g *gateway) inUse(t testing.TB) float64 {
	t.Helper()
	return g.metric(t, "larder_request_allowance_bytes", "in_use")
}
