package report_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"larder/interop/internal/compare/price"
	"larder/interop/internal/compare/report"
	"larder/interop/internal/compare/run"
	"larder/interop/internal/compare/trips"
)

func results() *run.Results {
	figure := func(cpu, latency float64) *run.Figure {
		return &run.Figure{
			CPU: []float64{cpu, cpu * 1.1, cpu * 0.9}, First: []float64{1, 1, 1},
			Latency:   []float64{latency, latency, 10 * latency},
			Allocated: []float64{2e6}, Objects: []float64{12_345}, Peak: []float64{5e7},
			Bucket: []trips.Count{
				{Index: trips.Volume{Requests: 3, Bytes: 1e6}, Trips: 2, Queued: 1},
				{Index: trips.Volume{Requests: 4, Bytes: 2e6}, Trips: 3},
				{Index: trips.Volume{Requests: 5, Bytes: 3e6}, Trips: 4},
			},
		}
	}
	loaded := func(cpu, latency float64) *run.Figure {
		f := figure(cpu, latency)
		f.Requests = []float64{1, 2, 3}
		return f
	}
	start := func(system string) *run.Start {
		return &run.Start{
			Set: "many", Blocks: 500, System: system, Ready: []float64{1, 2}, CPU: []float64{1, 2},
			Settled: []float64{1, 2}, Peak: []float64{1, 2}, Resident: []float64{1, 2},
		}
	}
	disk := figure(1, 50)
	disk.Later, disk.LaterFirst = []float64{30}, []float64{2}
	return &run.Results{
		Others: 0.2, Starts: []*run.Start{start("thanos"), start("larder")},
		Started: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), Took: time.Minute, Rounds: 3,
		Machine: "2 x CPU", Larder: "abc", FirstByte: 20 * time.Millisecond, BytesPerSecond: 80e6,
		Prices: price.Default(),
		Rows: []*run.Row{
			{
				Query: "Q1", Mode: run.S3Cold, Concurrency: 1,
				Systems: map[string]*run.Figure{"thanos": figure(4, 100), "larder": figure(1, 50)},
			},
			{
				Query: "Q3", Mode: run.S3Warm, Concurrency: 32,
				Systems: map[string]*run.Figure{"thanos": loaded(4, 100), "larder": loaded(1, 50)},
			},
			{
				Query: "G980", Mode: run.FS, Concurrency: 1,
				Systems: map[string]*run.Figure{"larder": figure(1, 2)},
			},
			{
				Query: "Q4", Mode: run.S3Disk, Concurrency: 1,
				Systems: map[string]*run.Figure{"larder": disk},
			},
		},
	}
}

func TestTables(t *testing.T) {
	var b bytes.Buffer
	report.Write(&b, results())
	for _, want := range []string{
		"Thanos v0.42.4; up to 3 rounds.",
		"| Q1 | thanos | 3 | 4.00 ±0.400 | 1.00 ±0 | 100 ±450 | 1000 |  |  | 2.00 | 12.3 k | 50.0 |\n",
		"| Q1 | larder | 3 | 1.00 ±0.100 | 1.00 ±0 | 50.0 ±225 | 500 | 0.25 | 0.50 | 2.00 | 12.3 k | 50.0 |\n",
		// 4 GETs a query, and 1 ms of CPU time.
		"| Q1 | larder | 4 | 4 | 0 | 0 | 2.00 | 2.00 | 0 | 3 | 0 | 0.0016 |\n",
		"### How cost grows with the series of an answer",
		"| 980 | larder | 3 | 1.00 ±0.100 | 1.02 |",
		"| Q3 | 32 | larder | 3 | 1.00 ±0.100 | 1.00 ±0 | 50.0 ±225 | 500 | 0.25 | 0.50 | 50.0 | 2.00 |",
		"| 500 | larder | 2 | 1.00 ±0.500 |",
		"Other processes used 20 %", "Read the quotients, not the times.",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the tables lack %q:\n%s", want, b.String())
		}
	}
}

// TestDiskTables: what was measured with a disk cache stands beside its goal, and a page that gets
// nothing else keeps its other results.
func TestDiskTables(t *testing.T) {
	res := results()
	res.Rows = res.Rows[3:]
	res.Starts = nil
	res.Restart = &run.Restart{
		Queries: 3, Warm: [][]float64{{1, 2, 4}}, After: [][]float64{{2, 3, 6}},
		Bucket: []trips.Count{{Chunks: trips.Volume{Requests: 5}}},
	}
	res.WorkingSet = []*run.WorkingSet{{
		Pass: "each panel once", Bytes: 80e6, Memory: 20e6, Disk: 200e6,
		Touched: map[string]float64{"index": 100, "chunks": 300},
		Hits: map[string]map[string]float64{
			"index": {"memory": 50, "disk": 50}, "chunks": {"memory": 30, "disk": 240},
		},
	}}
	name := filepath.Join(t.TempDir(), "page.md")
	page := "<!-- queries:begin -->\n<!-- queries:end -->\n<!-- results:begin -->\nformer\n" +
		"<!-- results:end -->\n<!-- disk:begin -->\n<!-- disk:end -->\n"
	if err := os.WriteFile(name, []byte(page), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := report.Page(name, res, nil); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"<!-- results:begin -->\nformer\n<!-- results:end -->\n",
		"| Q4 | 3 | 1.00 ±0 | 2.00 |  | 50.0 ±225 | 30.0 | ≤ 90 | 4 | ≤ 40 | 4 | 3 " +
			"| ≤ 1 | 1.00 ±0.100 | 2.00 |\n",
		"### The first 3 dashboard queries after a restart",
		"| 1 | 2.00 | 3.00 | 4.00 | 6.00 | 1.50 | ≤ 2 | 0 | 0 | 5 |\n",
		"| each panel once | 80.0 | 20.0 | 200 | 92.5 | ≥ 95 | 20.0 | 72.5 | 100.0 | 90.0 |\n",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the page lacks %q:\n%s", want, b)
		}
	}
}

func TestPage(t *testing.T) {
	name := filepath.Join(t.TempDir(), "page.md")
	page := "before\n<!-- queries:begin -->\nformer\n<!-- queries:end -->\nbetween\n" +
		"<!-- results:begin -->\n<!-- results:end -->\n<!-- moves:begin -->\n<!-- moves:end -->\n" +
		"<!-- disk:begin -->\n<!-- disk:end -->\nafter\n"
	if err := os.WriteFile(name, []byte(page), 0o666); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing may change
		if err := report.Page(name, results(), results()); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		has := func(line string, times int) bool { return strings.Count(text, line) == times }
		if !has("former", 0) || !strings.HasPrefix(text, "before\n") ||
			!strings.HasSuffix(text, "<!-- disk:end -->\nafter\n") || !has("![", 3) ||
			!has("| Q1 | s3-cold | 1 | 0.250 | 0.250 |", 1) || !has("| Q1 | medium |", 1) ||
			!has("| Q1 | larder | 3 |", 1) || !has("| Q4 | 3 | 1.00 ±0 |", 1) ||
			!has("Made 2026", 2) {
			t.Fatalf("page:\n%s", text)
		}
	}
	if err := os.WriteFile(name, []byte("no marks"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := report.Page(name, results(), results()); err == nil {
		t.Error("a page without marks was written")
	}
}
