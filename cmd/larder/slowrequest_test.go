package main

import (
	"encoding/json"
	"strings"
	"testing"

	"larder/benchmarks/dataset"
)

// TestSlowRequestsAreLogged calls every method of a process for which each request is slow. The
// three requests for data have a line each, which says who asked, for what, and what it took.
// Other calls have none.
func TestSlowRequestsAreLogged(t *testing.T) {
	dir := t.TempDir()
	few := dataset.WholeMetric("few", 1, 3, 30_000)
	if _, err := few.Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	p := startLarder(t, nil, "--log.format=json", "store",
		"--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0",
		"--objstore.config="+folder(dir), "--data-dir="+t.TempDir(),
		"--store.log-requests-longer-than=1ns")
	p.await(`"ready":true`)
	if err := everyRPC(t.Context(), p.rpc, "kitchen"); err != nil {
		t.Fatal(err)
	}
	p.stop()

	lines := map[string]map[string]any{}
	for _, text := range p.seen {
		if !strings.Contains(text, `"msg":"slow request"`) {
			continue
		}
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		lines[line["method"].(string)] = line
		t.Log(text)
	}
	if len(lines) != 3 {
		t.Errorf("methods with a line: got %d, want 3: %v", len(lines), lines)
	}
	series := lines["/thanos.Store/Series"]
	for key, want := range map[string]any{
		"level": "info", "tenant": "kitchen", "matchers": `{__name__=~".+"}`,
		"blocks": 1.0, "series_sent": 200.0, "attempts": 1.0,
	} {
		if series[key] != want {
			t.Errorf("%s of Series: got %v, want %v", key, series[key], want)
		}
	}
	for _, key := range []string{"requestID", "peer", "min_time", "max_time"} {
		if v, ok := series[key].(string); !ok || v == "" {
			t.Errorf("%s of Series: got %v, want a text", key, series[key])
		}
	}
	// Durations are numbers of seconds.
	for _, key := range []string{
		"duration", "first_frame", "stage_postings", "stage_series", "stage_chunks",
		"postings_bytes_touched", "chunks_bytes_touched", "chunks_bytes_fetched",
		"bucket_requests", "estimated_usd",
	} {
		if v, ok := series[key].(float64); !ok || v <= 0 {
			t.Errorf("%s of Series: got %v, want a number above 0", key, series[key])
		}
	}
	if got := lines["/thanos.Store/LabelValues"]["label"]; got != "__name__" {
		t.Errorf("label of LabelValues: got %v", got)
	}
}
