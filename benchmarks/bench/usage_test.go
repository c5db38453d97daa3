package bench

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/labels"

	"larder/benchmarks/scenario"
)

const before = `# TYPE larder_stage_duration_seconds histogram
larder_stage_duration_seconds_bucket{method="Series",stage="gate",le="0.001"} 5
larder_stage_duration_seconds_bucket{method="Series",stage="gate",le="+Inf"} 5
larder_stage_duration_seconds_sum{method="Series",stage="gate"} 1
larder_stage_duration_seconds_count{method="Series",stage="gate"} 5
# TYPE larder_pages_touched_total counter
larder_pages_touched_total{kind="index"} 10
larder_pages_touched_total{kind="chunks"} 10
# TYPE larder_pages_hits_total counter
larder_pages_hits_total{kind="index",tier="memory"} 5
larder_pages_hits_total{kind="index",tier="memcached"} 1
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 1
`

const after = `# TYPE larder_stage_duration_seconds histogram
larder_stage_duration_seconds_bucket{method="LabelNames",stage="gate",le="0.001"} 0
larder_stage_duration_seconds_bucket{method="LabelNames",stage="gate",le="0.002"} 4
larder_stage_duration_seconds_bucket{method="LabelNames",stage="gate",le="+Inf"} 4
larder_stage_duration_seconds_sum{method="LabelNames",stage="gate"} 1
larder_stage_duration_seconds_count{method="LabelNames",stage="gate"} 4
larder_stage_duration_seconds_bucket{method="Series",stage="gate",le="0.001"} 10
larder_stage_duration_seconds_bucket{method="Series",stage="gate",le="0.002"} 10
larder_stage_duration_seconds_bucket{method="Series",stage="gate",le="0.004"} 11
larder_stage_duration_seconds_bucket{method="Series",stage="gate",le="+Inf"} 11
larder_stage_duration_seconds_sum{method="Series",stage="gate"} 1
larder_stage_duration_seconds_count{method="Series",stage="gate"} 11
# TYPE larder_pages_touched_total counter
larder_pages_touched_total{kind="index"} 20
larder_pages_touched_total{kind="chunks"} 30
# TYPE larder_pages_hits_total counter
larder_pages_hits_total{kind="index",tier="memory"} 15
larder_pages_hits_total{kind="index",tier="memcached"} 3
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 3
`

// TestUsageOfAnEndpoint reads the metrics of a gateway elsewhere before and after a load.
func TestUsageOfAnEndpoint(t *testing.T) {
	text := before
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(text))
	}))
	defer srv.Close()
	target := &Target{Gather: MetricsFrom(srv.URL)}
	a, err := used(t.Context(), target, true)
	if err != nil {
		t.Fatal(err)
	}
	text = after
	b, err := used(t.Context(), target, false)
	if err != nil {
		t.Fatal(err)
	}
	var u usage
	u.add(&a, &b)
	if u.cpu.Seconds() != 2 || !u.hasCPU || !u.hasCounters {
		t.Errorf("CPU %v, known %v", u.cpu, u.hasCPU)
	}
	// Of ten requests, five took up to 1 ms, four up to 2 ms, one up to 4 ms.
	rows := u.stageRows(0.9)
	if len(rows) != 1 || rows[0].Name != "gate" || rows[0].P50 != 1 || rows[0].P90 != 2 ||
		rows[0].P99 != 4 || rows[0].Max != 4 || rows[0].At != 2 {
		t.Errorf("stages: %+v", rows)
	}
	shares := map[string]float64{}
	for _, h := range u.hits(10) {
		shares[h.Cache+" "+h.Tier] = h.Share
	}
	for what, want := range map[string]float64{
		"pages memory": 10.0 / 30, "pages memcached": 2.0 / 30, "pages the bucket": 18.0 / 30,
	} {
		if got := shares[what]; got < want-1e-9 || got > want+1e-9 {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	srv.Close()
	if _, err := used(t.Context(), target, true); err == nil {
		t.Error("no error from metrics that cannot be read")
	}
}

func TestGatherIsOptional(t *testing.T) {
	u, err := used(t.Context(), &Target{}, true)
	if err != nil || u.hasCPU || u.hasCounters {
		t.Errorf("%+v, %v", u, err)
	}
	empty := func(context.Context) (map[string]*dto.MetricFamily, error) { return nil, nil }
	u, err = used(t.Context(), &Target{Gather: empty}, true)
	if err != nil || u.hasCPU || len(u.stageRows(1)) > 0 {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestChooseLabels: ${label} has the most values, and ${other} few that are not just other names of
// the same things.
func TestChooseLabels(t *testing.T) {
	var series []labels.Labels
	for _, pod := range []string{"p1", "p2", "p3", "p4", "p5"} {
		for _, code := range []string{"200", "500"} {
			series = append(series, labels.FromStrings(
				"__name__", "m", "instance", "at-"+pod, "pod", pod, "code", code, "job", "j"))
		}
	}
	var s scenario.Subject
	chooseLabels(&s, series)
	if s.Label != "pod" || len(s.Values) != 5 || s.Other != "code" ||
		!slices.Equal(s.OtherValues, []string{"200", "500"}) {
		t.Errorf("label %s %v, other %s %v", s.Label, s.Values, s.Other, s.OtherValues)
	}
	s = scenario.Subject{Metric: "m"}
	chooseLabels(&s, []labels.Labels{labels.FromStrings("__name__", "m")})
	if s.Label != "__name__" || !slices.Equal(s.Values, []string{"m"}) || s.Other != "__name__" {
		t.Errorf("a metric without labels: %+v", s)
	}
}
