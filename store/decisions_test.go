package store_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"larder/benchmarks/dataset"
	"larder/internal/pagecache"
	"larder/internal/telemetry/telemetrytest"
	"larder/store/storepb"
)

// TestDecisionsAreLogged makes a cold request at level debug. The log says which posting lists and
// which bytes were chosen, and what the alternatives would have cost. At level info it says
// nothing.
func TestDecisionsAreLogged(t *testing.T) {
	dir := t.TempDir()
	spec := dataset.WholeMetric("decided", 1, 2000, 30_000)
	if _, err := spec.Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	decisions := func(level slog.Level) map[string][]map[string]any {
		var log telemetrytest.Buffer
		logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: level}))
		g := startGateway(t, dir, gatewayOptions{
			indexBytes: 16 << 20, chunkBytes: 16 << 20,
			logger: logger, pages: pagecache.Options{Logger: logger},
		})
		req := wholeMetric(64)
		req.Matchers = append(req.Matchers, &storepb.LabelMatcher{
			Type: storepb.LabelMatcher_RE, Name: "pod", Value: ".*1.*",
		})
		if _, err := g.query(context.Background(), req); err != nil {
			t.Fatal(err)
		}
		lines := map[string][]map[string]any{}
		for text := range strings.Lines(log.String()) {
			var line map[string]any
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				t.Fatal(err)
			}
			msg := line["msg"].(string)
			lines[msg] = append(lines[msg], line)
		}
		return lines
	}

	lines := decisions(slog.LevelDebug)
	plans := lines["postings planned"]
	if len(plans) != 1 {
		t.Fatalf("got %d plans of postings, want 1", len(plans))
	}
	t.Log(plans[0]["choices"])
	for _, want := range []string{`"__name__" read, 1 lists of`, `"pod" `, "with and", "without"} {
		if choices := plans[0]["choices"].(string); !strings.Contains(choices, want) {
			t.Errorf("choices lack %s: %s", want, choices)
		}
	}
	reads := lines["bucket reads planned"]
	if len(reads) == 0 {
		t.Fatal("no plan of reads")
	}
	t.Log(reads[0])
	for _, line := range reads {
		for _, key := range []string{
			"requests", "bytes", "cost", "cost_without_gaps", "cost_of_one_read",
		} {
			if v, ok := line[key].(float64); !ok || v <= 0 {
				t.Errorf("%s: got %v, want a number above 0: %v", key, line[key], line)
			}
		}
		if line["cost"].(float64) > line["cost_without_gaps"].(float64) {
			t.Errorf("the plan costs more than its alternative: %v", line)
		}
	}

	quiet := decisions(slog.LevelInfo)
	if len(quiet["postings planned"])+len(quiet["bucket reads planned"]) > 0 {
		t.Error("plans are logged at level info")
	}
}
