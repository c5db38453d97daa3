package store_test

import (
	"context"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/store"
	"larder/store/admission"
	"larder/store/storepb"
)

// TestLimitsDoNotKnowOfSeriesSets sends the same requests to warm gateways with and without series
// sets. The largest limit that rejects a request must be the same.
func TestLimitsDoNotKnowOfSeriesSets(t *testing.T) {
	dir, metas := twoBlocks(t)
	type warm struct {
		g    *gateway
		opts store.Options
	}
	start := func(o gatewayOptions) *warm {
		w := &warm{}
		o.server = func(o *store.Options) { w.opts = *o }
		w.g = startGateway(t, dir, o)
		return w
	}
	send := func(s *store.Server, req *storepb.SeriesRequest) error {
		return s.Series(req, &frames{ctx: context.Background(), on: func(int) error { return nil }})
	}
	kept, plain := start(gatewayOptions{}), start(gatewayOptions{setBytes: -1})
	// refused returns the largest limit that rejects a request.
	refused := func(
		w *warm, req *storepb.SeriesRequest, set func(o *admission.LimitOptions, n uint64),
	) uint64 {
		t.Helper()
		lo, hi := uint64(0), uint64(1<<24)
		for lo+1 < hi {
			o := w.opts
			o.Registerer = prometheus.NewRegistry()
			mid := (lo + hi) / 2
			set(&o.Limits, mid)
			switch err := send(store.New(o), req); {
			case err == nil:
				hi = mid
			case status.Code(err) == codes.ResourceExhausted:
				lo = mid
			default:
				t.Fatal(err)
			}
		}
		return lo
	}
	f := func(name string, change func(*storepb.SeriesRequest)) {
		t.Helper()
		req := wholeMetric(64)
		change(req)
		for _, w := range []*warm{kept, plain} {
			for range 3 {
				if err := send(w.g.Server, req); err != nil {
					t.Fatal(err)
				}
			}
		}
		hits := kept.g.Sets.Stats().Hits
		for what, set := range map[string]func(*admission.LimitOptions, uint64){
			"series": func(o *admission.LimitOptions, n uint64) { o.Series = n },
			"chunks": func(o *admission.LimitOptions, n uint64) { o.Samples = 120 * n },
			"bytes":  func(o *admission.LimitOptions, n uint64) { o.Bytes = n },
		} {
			if got, want := refused(kept, req, set), refused(plain, req, set); got != want {
				t.Errorf(
					"%s: the largest limit of %s that refuses is %d with series sets, %d without",
					name, what, got, want,
				)
			} else {
				t.Logf("%s: refused with a limit of %d %s", name, got, what)
			}
		}
		if kept.g.Sets.Stats().Hits == hits {
			t.Errorf("%s: no set was used", name)
		}
	}
	middle := metas[0].MaxTime
	f("all", func(*storepb.SeriesRequest) {})
	f("no chunks", func(x *storepb.SeriesRequest) { x.SkipChunks = true })
	f("a part of the time",
		func(x *storepb.SeriesRequest) { x.MinTime, x.MaxTime = middle-600_000, middle+600_000 })
	f("a shard", func(x *storepb.SeriesRequest) {
		x.ShardInfo = &storepb.ShardInfo{
			ShardIndex:  1,
			TotalShards: 3,
			By:          true,
			Labels:      []string{"pod", "handler", "code"},
		}
	})
	f("several matchers", func(x *storepb.SeriesRequest) {
		x.Matchers = append(x.Matchers,
			&storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: "handler", Value: "/api.*"})
	})
	f("removed labels",
		func(x *storepb.SeriesRequest) { x.WithoutReplicaLabels = []string{"replica", "pod"} })
	f("nothing", func(x *storepb.SeriesRequest) { x.Matchers[0].Value = "absent" })
}

// TestLabelRequestsUseSeriesSets checks that label names and values from a series set are the same
// as without it, and that no index page is read.
func TestLabelRequestsUseSeriesSets(t *testing.T) {
	dir, metas := twoBlocks(t)
	g, plain := startGateway(
		t, dir, gatewayOptions{},
	), startGateway(t, dir, gatewayOptions{setBytes: -1})
	ctx := context.Background()
	matchers := append(wholeMetric(0).Matchers,
		&storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: "pod", Value: ".*"})
	whole := wholeMetric(0)
	whole.Matchers = matchers
	if _, err := g.query(ctx, whole); err != nil {
		t.Fatal(err)
	}
	before := g.Sets.Stats()
	ask := func(g *gateway, minT, maxT int64) (out [2][]string) {
		t.Helper()
		names, err := g.client.LabelNames(ctx,
			&storepb.LabelNamesRequest{Start: minT, End: maxT, Matchers: matchers})
		if err != nil {
			t.Fatal(err)
		}
		values, err := g.client.LabelValues(ctx, &storepb.LabelValuesRequest{
			Label:    "handler",
			Start:    minT,
			End:      maxT,
			Matchers: matchers,
		})
		if err != nil {
			t.Fatal(err)
		}
		return [2][]string{names.Names, values.Values}
	}
	for _, r := range [][2]int64{{math.MinInt64, math.MaxInt64},
		{metas[0].MinTime, metas[0].MinTime + 60_000}, {0, 1}} {
		if diff := cmp.Diff(ask(plain, r[0], r[1]), ask(g, r[0], r[1])); diff != "" {
			t.Errorf("%v (-without sets +with):\n%s", r, diff)
		}
	}
	if st := g.Sets.Stats(); st.Hits < before.Hits+4 {
		t.Errorf("label requests used %d sets", st.Hits-before.Hits)
	}
	if st := g.Sets.Stats(); st.Items != before.Items {
		t.Error("label requests built sets")
	}
}

// TestIdenticalRequestsDecodeOnce sends the same request fifty times at once. The series entries
// must be decoded once for all of them.
func TestIdenticalRequestsDecodeOnce(t *testing.T) {
	const series, requests = 800, 50
	g := startGateway(t, wholeBlock(t, series), gatewayOptions{})
	var wg sync.WaitGroup
	answers := make([][]string, requests)
	for i := range requests {
		wg.Go(func() {
			a, err := g.query(context.Background(), wholeMetric(64))
			if err != nil {
				t.Error(err)
				return
			}
			answers[i] = a.texts()
		})
	}
	wg.Wait()
	for _, a := range answers {
		if len(a) != series || !slices.Equal(a, answers[0]) {
			t.Fatalf("%d series, not the same as in the first answer", len(a))
		}
	}
	if n := g.metric(t, "thanos_bucket_store_series_data_touched", "series",
		"default-tenant"); n != series {
		t.Errorf("%v series entries were decoded for %d requests of %d series", n, requests, series)
	}
	st := g.Sets.Stats()
	if shared := st.Hits + g.Sets.Coalesced(); st.Items != 1 || shared != requests-1 {
		t.Errorf("%d sets; %d requests found one, %d shared its construction",
			st.Items, st.Hits, g.Sets.Coalesced())
	}
	if n := g.inUse(t); n != 0 || g.Sets.ReservedBytes() != 0 {
		t.Errorf("%v bytes of the allowance are still reserved, %d of series sets",
			n, g.Sets.ReservedBytes())
	}
}
