package admission

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestLimitTexts(t *testing.T) {
	reg := prometheus.NewRegistry()
	l := NewLimits(LimitOptions{Series: 10, Samples: 1200, Bytes: 1000}, nil, reg)
	l.NameTenants(DefaultTenant, func(tenant string, count func(label string)) { count(tenant) })
	series, chunks, bytes := l.For("team-a")
	for _, c := range []struct {
		reserve func() error
		want    string // empty: no error
	}{
		{func() error { return series.Reserve(10) }, ""},
		{func() error { return series.Reserve(0) }, ""},
		{func() error {
			return series.Reserve(3)
		}, "exceeded series limit: limit 10 violated (got 13)"},
		{func() error {
			return series.Reserve(0)
		}, "exceeded series limit: limit 10 violated (got 13)"},
		{func() error {
			return chunks.Reserve(11)
		}, "exceeded chunks limit: limit 10 violated (got 11)"},
		{func() error { return bytes.Reserve("postings", 600) }, ""},
		{func() error { return bytes.Reserve("series", 400) }, ""},
		{func() error { return bytes.Reserve("chunks", 1) }, "exceeded bytes limit while fetching chunks: limit 1000 violated (got 1001)"},
		{func() error { return bytes.Reserve("series", 1) }, "exceeded bytes limit while fetching chunks: limit 1000 violated (got 1001)"},
	} {
		err := c.reserve()
		if c.want == "" {
			if err != nil {
				t.Errorf("got %v, want no error", err)
			}
			continue
		}
		if status.Code(err) != codes.ResourceExhausted || status.Convert(err).Message() != c.want {
			t.Errorf("got %v, want ResourceExhausted: %s", err, c.want)
		}
	}
	// Another request starts at nothing.
	series, _, _ = l.For("team-b")
	if err := series.Reserve(10); err != nil {
		t.Error(err)
	}
	want := map[string]float64{
		"thanos_bucket_store_queries_dropped_total series team-a": 1,
		"thanos_bucket_store_queries_dropped_total chunks team-a": 1,
		"thanos_bucket_store_queries_dropped_total bytes team-a":  1,
		// There before the first, so that a rate sees it.
		"thanos_bucket_store_queries_dropped_total series default-tenant": 0,
		"thanos_bucket_store_queries_dropped_total chunks default-tenant": 0,
		"thanos_bucket_store_queries_dropped_total bytes default-tenant":  0,
	}
	if diff := cmp.Diff(want, gathered(t, reg)); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// TestSamplesAreChunks: a limit on samples permits the chunks that they fill, and at least one.
func TestSamplesAreChunks(t *testing.T) {
	for _, c := range []struct{ samples, chunks uint64 }{
		{1, 1}, {119, 1}, {120, 1}, {121, 2}, {240, 2}, {math.MaxUint64, math.MaxUint64/120 + 1},
	} {
		_, chunks, _ := NewLimits(LimitOptions{Samples: c.samples}, nil, nil).For("")
		if err := chunks.Reserve(c.chunks); err != nil {
			t.Errorf("%d samples: %v", c.samples, err)
		}
		if err := chunks.Reserve(1); err == nil {
			t.Errorf("%d samples: %d chunks are allowed", c.samples, c.chunks+1)
		}
	}
}

func TestNoLimits(t *testing.T) {
	var none *Limits
	for _, l := range []*Limits{none, NewLimits(LimitOptions{}, nil, nil)} {
		series, chunks, bytes := l.For("")
		for range 3 {
			for _, err := range []error{series.Reserve(math.MaxUint64),
				chunks.Reserve(math.MaxUint64), bytes.Reserve("chunks", math.MaxUint64)} {
				if err != nil {
					t.Errorf("got %v, want no limit", err)
				}
			}
		}
	}
}

// TestLimitDoesNotWrap: a sum beyond 64 bits is a violation, not a small number.
func TestLimitDoesNotWrap(t *testing.T) {
	series, _, _ := NewLimits(LimitOptions{Series: math.MaxUint64 - 1}, nil, nil).For("")
	if err := series.Reserve(math.MaxUint64 - 1); err != nil {
		t.Fatal(err)
	}
	if err := series.Reserve(math.MaxUint64); err == nil {
		t.Error("twice 2^64 series are within the limit")
	}
}

// TestLimitConcurrent: exactly the limit gets through, and all others get the same error.
func TestLimitConcurrent(t *testing.T) {
	reg := prometheus.NewRegistry()
	const limit, goroutines, each = 1000, 8, 200
	series, _, _ := NewLimits(LimitOptions{Series: limit}, nil, reg).For("t")
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		ok    int
		texts = map[string]int{}
	)
	for range goroutines {
		wg.Go(func() {
			for range each {
				err := series.Reserve(1)
				mu.Lock()
				if err == nil {
					ok++
				} else {
					texts[err.Error()]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if ok != limit {
		t.Errorf("%d of %d got through, want %d", ok, goroutines*each, limit)
	}
	if len(texts) != 1 {
		t.Errorf("different errors for one request: %v", texts)
	}
	for text, n := range texts {
		if n != goroutines*each-limit {
			t.Errorf("%s: %d times, want %d", text, n, goroutines*each-limit)
		}
	}
	if got := gathered(t, reg)[fmt.Sprintf("thanos_bucket_store_queries_dropped_total series %s",
		"t")]; got != 1 {
		t.Errorf("the request was counted %v times, want once", got)
	}
}

func TestForesee(t *testing.T) {
	f := func(used, n, wantAll uint64, wantAbove bool) {
		t.Helper()
		series, _, bytes := NewLimits(LimitOptions{Series: 10, Bytes: 10}, nil, nil).For("")
		if err := series.Reserve(used); err != nil {
			t.Fatal(err)
		}
		if err := bytes.Reserve("series", used); err != nil {
			t.Fatal(err)
		}
		for what, foresee := range map[string]func(uint64) (uint64, uint64, bool){
			"series": series.Foresee, "bytes": bytes.Foresee,
		} {
			all, limit, above := foresee(n)
			if all != wantAll || limit != 10 || above != wantAbove {
				t.Errorf("%d %s and %d more: got %d of %d, above %v, want %d, %v",
					used, what, n, all, limit, above, wantAll, wantAbove)
			}
		}
	}
	f(0, 0, 0, false)
	f(4, 6, 10, false)
	f(4, 7, 11, true)
	f(4, math.MaxUint64, math.MaxUint64, true)
	series, _, bytes := NewLimits(LimitOptions{}, nil, nil).For("")
	if _, _, above := series.Foresee(math.MaxUint64); above {
		t.Error("more than no limit of series")
	}
	if _, _, above := bytes.Foresee(math.MaxUint64); above {
		t.Error("more than no limit of bytes")
	}
}
