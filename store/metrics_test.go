package store_test

import (
	"context"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"larder/store/storepb"
)

// values returns the series of some metric families by "name label label": the value of a counter
// or gauge, the count and sum of a histogram.
func values(t testing.TB, reg *prometheus.Registry, prefixes ...string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		wanted := false
		for _, p := range prefixes {
			wanted = wanted || strings.HasPrefix(f.GetName(), p)
		}
		if !wanted {
			continue
		}
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				out[key] = m.GetCounter().GetValue()
			case dto.MetricType_GAUGE:
				out[key] = m.GetGauge().GetValue()
			case dto.MetricType_HISTOGRAM:
				out[key+" count"] = float64(m.GetHistogram().GetSampleCount())
				out[key+" sum"] = m.GetHistogram().GetSampleSum()
			}
		}
	}
	return out
}

// TestCacheMetricsCountRequests sends the same request twice. The first time pages of each kind are
// missing, the second time all are cached.
func TestCacheMetricsCountRequests(t *testing.T) {
	dir, metas := twoBlocks(t)
	g := startGateway(t, dir, gatewayOptions{postingsBytes: -1, setBytes: -1})
	ask := func(req *storepb.SeriesRequest) {
		t.Helper()
		if err := g.Server.Series(req, &frames{ctx: context.Background(), on: func(int) error {
			return nil
		}}); err != nil {
			t.Fatal(err)
		}
	}
	read := func() map[string]float64 {
		return values(t, g.reg, "thanos_store_", "thanos_bucket_store_sent_chunk_size_bytes",
			"thanos_bucket_store_series_result_series",
			"thanos_bucket_store_chunks_fetch_duration_sum_seconds")
	}
	ask(only(t, metas[0]))
	cold := read()
	ask(only(t, metas[0]))
	warm := read()
	for _, c := range [][2]string{
		{"thanos_store_index_cache_requests_total Postings default-tenant", "thanos_store_index_cache_hits_total Postings default-tenant"},
		{"thanos_store_index_cache_requests_total Series default-tenant", "thanos_store_index_cache_hits_total Series default-tenant"},
		{"thanos_store_bucket_cache_operation_requests_total chunks getrange", "thanos_store_bucket_cache_operation_hits_total chunks getrange"},
		{"thanos_store_bucket_cache_getrange_requested_bytes_total chunks", "thanos_store_bucket_cache_getrange_fetched_bytes_total chunks cache"},
	} {
		requests, hits := c[0], c[1]
		if cold[requests] == 0 || warm[requests] != 2*cold[requests] {
			t.Errorf("%s: %v, then %v", requests, cold[requests], warm[requests])
		}
		if d := warm[hits] - cold[hits]; d != cold[requests] {
			t.Errorf("%s: %v, then %v: the second time all of %v hit",
				hits, cold[hits], warm[hits], cold[requests])
		}
	}
	const waited = "thanos_bucket_store_chunks_fetch_duration_sum_seconds default-tenant "
	if cold[waited+"sum"] == 0 || warm[waited+"sum"] != cold[waited+"sum"] ||
		warm[waited+"count"] != 2 {
		t.Errorf(
			"waited for chunks: %v s, then %v s in %v requests; the second has nothing to wait for",
			cold[waited+"sum"], warm[waited+"sum"], warm[waited+"count"],
		)
	}
	if n := warm["thanos_store_server_series_requested count"]; n != 2 {
		t.Errorf("series_requested has %v requests", n)
	}
	const sent = "thanos_bucket_store_sent_chunk_size_bytes default-tenant "
	if n := warm[sent+"count"]; n == 0 ||
		n != warm["thanos_bucket_store_series_result_series default-tenant sum"] {
		t.Errorf("sent_chunk_size_bytes has %v series of %v",
			n, warm["thanos_bucket_store_series_result_series default-tenant sum"])
	}
	if warm[sent+"sum"] == 0 {
		t.Error("sent_chunk_size_bytes has no bytes")
	}

	// A request without chunks sends none.
	req := only(t, metas[0])
	req.SkipChunks = true
	ask(req)
	if n := read()[sent+"count"]; n != warm[sent+"count"] {
		t.Errorf("sent_chunk_size_bytes counts %v series that were sent without chunks",
			n-warm[sent+"count"])
	}

	// With cached expanded postings, the second request reads no page of postings.
	g = startGateway(t, dir, gatewayOptions{setBytes: -1})
	ask(only(t, metas[0]))
	cold = read()
	ask(only(t, metas[0]))
	warm = read()
	const requests, hits = "thanos_store_index_cache_requests_total ",
		"thanos_store_index_cache_hits_total "
	const pages, expanded = "Postings default-tenant", "ExpandedPostings default-tenant"
	if cold[requests+pages] == 0 || warm[requests+pages] != cold[requests+pages] {
		t.Errorf("pages of postings: %v, then %v", cold[requests+pages], warm[requests+pages])
	}
	if cold[requests+expanded] != 1 || cold[hits+expanded] != 0 || warm[requests+expanded] != 2 ||
		warm[hits+expanded] != 1 {
		t.Errorf("expanded postings: %v of %v hit, then %v of %v",
			cold[hits+expanded], cold[requests+expanded], warm[hits+expanded],
			warm[requests+expanded])
	}

	// With a cached series set, it reads only the set. Data that it does not use does not count as
	// a hit.
	g = startGateway(t, dir, gatewayOptions{})
	ask(only(t, metas[0]))
	cold = read()
	ask(only(t, metas[0]))
	warm = read()
	for name := range cold {
		if strings.HasPrefix(name, requests) && cold[name] != warm[name] {
			t.Errorf("%s: %v, then %v", name, cold[name], warm[name])
		}
	}
	if st := g.Sets.Stats(); st.Requests != 2 || st.Hits != 1 {
		t.Errorf("series sets: %+v", st)
	}
}
