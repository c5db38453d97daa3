package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"larder/benchmarks/curves"
)

// TestBenchCurves measures a gateway with small caches while it records a page trace. The curves
// must predict the hit ratio that it had, and say that larger caches find more.
func TestBenchCurves(t *testing.T) {
	dir := t.TempDir()
	scenarios := write(t, "scenarios.yaml", `
queries:
  - {name: panel, series: '{__name__="${metric}",${label}="${value}"}', range: 2h, within: 25h}
  - {name: regex, series: '{__name__="${metric}",${label}=~"${prefix}.*"}', range: 1h, within: 25h}
  - {name: metric, series: '{__name__="${metric}"}', range: 1h, within: 25h}
mixes: {load: {panel: 20, regex: 5, metric: 1}}
scenarios: [{name: load, mix: load, cache: cold, concurrency: 2, requests: 400}]
`)
	result := filepath.Join(dir, "result.json")
	stdout, stderr, err := runBench(t, "--model=none", "--dir="+dir, "--scenarios="+scenarios,
		"--json="+result, "--", "--page-trace-size=64MB", "--index-cache-size=4MB",
		"--index-cache.series-size=0", "--index-cache.postings-size=0", "--chunk-cache-size=6MB",
		"--disk-cache-size=40MB")
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, stderr, stdout)
	}
	measured := map[string]float64{}
	for _, h := range readReport(t, result).Scenarios[0].Hits {
		if h.Cache == "pages" {
			measured[h.Tier] = h.Share
		}
	}
	out, page := filepath.Join(dir, "curves.json"), filepath.Join(dir, "curves.html")
	stdout, stderr, err = runBench(t, "curves", filepath.Join(dir, "data/larder/page-trace"),
		"--json="+out, "--html="+page)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	t.Logf("measured %v\n%s", measured, stdout)
	if !strings.Contains(stdout, "label answers, index headers and memcached have no curve") {
		t.Errorf("the caches without a curve are not named")
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var c curves.Curves
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Curves) != 4 || c.Rate != 1 {
		t.Fatalf("got %d curves at a rate of %v, want memory and disk of both caches",
			len(c.Curves), c.Rate)
	}
	memory, disk := 0.0, 0.0
	for _, curve := range c.Curves {
		p := curve.Points // at half, one, two and ten times the size
		if len(p) != 4 || p[1].Scale != 1 || p[3].Bytes != 10*p[1].Bytes {
			t.Fatalf("%s: points %+v", curve.Title(), p)
		}
		if curve.Tier == "memory" {
			// The index of this bucket fits into half of its cache.
			if more := p[3].Memory - p[0].Memory; curve.Cache == "chunks" && more < 0.1 {
				t.Errorf("%s: ten times the size finds %.2f, half of it %.2f", curve.Title(),
					p[3].Memory, p[0].Memory)
			}
			memory += p[1].Memory * curve.Share
			disk += p[1].Disk * curve.Share
		}
	}
	t.Logf("predicted %.3f in memory, %.3f on disk", memory, disk)
	if got := measured["memory"]; got == 0 || math.Abs(memory-got) > 0.05 {
		t.Errorf("predicted hit ratio of the memory %.3f, measured %.3f", memory, got)
	}
	if got := measured["disk"]; got == 0 || math.Abs(disk-got) > 0.05 {
		t.Errorf("predicted hit ratio of the disk %.3f, measured %.3f", disk, got)
	}
	if b, err := os.ReadFile(page); err != nil || !strings.Contains(string(b), "<polyline") ||
		strings.Contains(string(b), "<script") {
		t.Errorf("the page: %v", err)
	}
	if _, stderr, err := runBench(t, "curves", scenarios); err == nil ||
		!strings.Contains(stderr, "not a page trace") {
		t.Errorf("another file: %v, %s", err, stderr)
	}
}
