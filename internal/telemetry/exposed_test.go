package telemetry

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// TestHistogramsAppearWithTheirFirstObservation: counters and single histograms of Thanos are
// exposed from the start, other histograms once they have observed something, each series of its
// own.
func TestHistogramsAppearWithTheirFirstObservation(t *testing.T) {
	reg := prometheus.NewRegistry()
	single := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "larder_single", Help: "h"})
	many := prometheus.NewHistogramVec(
		prometheus.HistogramOpts{Name: "many", Help: "h"}, []string{"stage"},
	)
	alerted := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "alerted", Help: "h"})
	count := prometheus.NewCounter(prometheus.CounterOpts{Name: "count", Help: "h"})
	reg.MustRegister(single, many, alerted, count)
	handled := prometheus.NewCounterVec(
		prometheus.CounterOpts{Name: "handled", Help: "h"}, []string{"grpc_code"},
	)
	reg.MustRegister(handled)
	handled.WithLabelValues("Aborted")
	handled.WithLabelValues("NotFound")
	exposed := func() map[string]int {
		families, err := Exposed(reg).Gather()
		if err != nil {
			t.Fatal(err)
		}
		n := map[string]int{}
		for _, f := range families {
			n[f.GetName()] = len(f.Metric)
		}
		return n
	}
	many.WithLabelValues("gate")
	many.WithLabelValues("send")
	want := map[string]int{"alerted": 1, "count": 1, "handled": 1}
	if diff := cmp.Diff(want, exposed()); diff != "" {
		t.Errorf("before the first observation (-want +got):\n%s", diff)
	}
	many.WithLabelValues("gate").Observe(0)
	single.Observe(1)
	handled.WithLabelValues("NotFound").Inc()
	want = map[string]int{
		"alerted": 1, "count": 1, "handled": 2, "larder_single": 1, "many": 1,
	}
	if diff := cmp.Diff(want, exposed()); diff != "" {
		t.Errorf("after it (-want +got):\n%s", diff)
	}
}

// TestExposedKeepsErrors: families that could be gathered are exposed beside an error.
func TestExposedKeepsErrors(t *testing.T) {
	name, broken := "up", errors.New("broken")
	families, err := Exposed(prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		return []*dto.MetricFamily{{Name: &name, Metric: []*dto.Metric{{}}}}, broken
	})).Gather()
	if !errors.Is(err, broken) || len(families) != 1 {
		t.Errorf("%d families, %v", len(families), err)
	}
}
