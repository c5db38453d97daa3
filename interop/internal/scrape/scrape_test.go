package scrape

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// TestScrapesAreWhatPrometheusStores: a storage has both forms of a histogram, the target's labels,
// and up; a selector of a missing series finds nothing.
func TestScrapesAreWhatPrometheusStores(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := prometheus.NewHistogram(
		prometheus.HistogramOpts{
			Name:                        "h",
			Buckets:                     []float64{1, 2},
			NativeHistogramBucketFactor: 1.1,
		},
	)
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c"}, []string{"l"})
	reg.MustRegister(h, c)
	srv := httptest.NewServer(promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	defer srv.Close()
	s, err := NewStorage(t.TempDir(), labels.Label{Name: "job", Value: "j"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	now := time.UnixMilli(1_700_000_000_000)
	for range 3 {
		h.Observe(1.5)
		c.WithLabelValues("x").Add(30)
		raw, err := Get(t.Context(), srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		fs, err := raw.Families()
		if err != nil {
			t.Fatal(err)
		}
		if sh := ShapeOf(fs["h"]); !sh.Native || len(sh.Buckets) != 2 || sh.Labels != "" {
			t.Errorf("h: %+v", sh)
		}
		if sh := ShapeOf(fs["c"]); sh.Labels != "l" || sh.Native {
			t.Errorf("c: %+v", sh)
		}
		now = now.Add(30 * time.Second)
		if err := s.Add(raw, now); err != nil {
			t.Fatal(err)
		}
	}
	for expr, want := range map[string]float64{
		`rate(c{job="j",l="x"}[1m30s])`: 1, `h_bucket{le="2.0"}`: 3, `histogram_count(h)`: 3,
		`up`: 1,
	} {
		if v, err := s.Eval(expr, now); err != nil || len(v) != 1 || v[0].F != want {
			t.Errorf("%s: got %v, %v, want %v", expr, v, err, want)
		}
	}
	e, err := parser.ParseExpr(`c{l="y"}`)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.Find(e.(*parser.VectorSelector), now); err != nil || n != 0 {
		t.Errorf("selector of a missing series: %d series, %v", n, err)
	}
	if err := s.Add(nil, now.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Eval("up", now.Add(time.Second)); err != nil || len(v) != 1 || v[0].F != 0 {
		t.Errorf("up after a scrape that failed: %v, %v", v, err)
	}
}
