package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"larder/benchmarks/bench/report"
)

// benchScenarios are short forms of what the built-in scenarios have: cold and warm, closed and
// open loops, Series and label requests.
const benchScenarios = `
queries:
  - {name: one, about: 'one ${label}', series: '{__name__="${metric}",${label}="${value}"}', range: 2h}
  - {name: all, label_values: '${label}', range: 2h}
mixes: {both: {one: 3, all: 1}}
scenarios:
  - {name: one-cold, query: one, cache: cold, requests: 2}
  - {name: all-cold, query: all, cache: cold, concurrency: 2, requests: 4}
  - {name: both-warm, mix: both, cache: warm, concurrency: 2, requests: 20, distinct: 10}
  - {name: both-open, mix: both, cache: warm, rate: 200, requests: 20, distinct: 10}
`

func runBench(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errOut strings.Builder
	cmd := larder(ctx, nil, append([]string{"bench"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// TestBench measures a bucket in process, with a budget that is kept and one that cannot be, and
// the same bucket behind an endpoint.
func TestBench(t *testing.T) {
	bucket, dir := wideBucket(t), t.TempDir()
	scenarios := write(t, "scenarios.yaml", benchScenarios)
	budgets := write(t, "budgets.yaml",
		"budgets: {one-cold: {total: 1h, gate: 1h}, both-open: {total: 1ns}}")
	result, page := filepath.Join(dir, "a.json"), filepath.Join(dir, "a.html")
	stdout, stderr, err := runBench(t, "--objstore.config="+folder(bucket),
		"--scenarios="+scenarios, "--budgets="+budgets, "--model=s3", "--model.first-byte=1ms",
		"--json="+result, "--html="+page, "--", "--index-cache.page-size=16KB")
	if err == nil || !strings.Contains(stderr, "budgets or requests that failed: 1") ||
		!strings.Contains(stdout, "Not kept:\n  both-open: total: ") {
		t.Fatalf("a budget of 1 ns: %v\n%s\n%s", err, stderr, stdout)
	}
	if !strings.Contains(stderr, "[4/4] both-open: ") || !strings.Contains(stderr, " left") {
		t.Errorf("no progress:\n%s", stderr)
	}
	a := readReport(t, result)
	if !strings.Contains(a.Target, "--index-cache.page-size=16KB") ||
		!strings.Contains(a.Bucket, "first byte 1ms") {
		t.Errorf("the report is about %s, %s", a.Target, a.Bucket)
	}
	for i, want := range []int{2, 4, 20, 20} {
		s := &a.Scenarios[i]
		if s.Requests != want || s.Errors > 0 || s.AnswerBytes == 0 || s.CPUSeconds == nil ||
			s.Allocs == nil || s.PeakBytes == nil || s.USD == nil {
			t.Errorf("%s: %+v", s.Name, s)
		}
		cold := strings.HasSuffix(s.Name, "cold")
		if reads := *s.Reads > 0; reads != (s.Name == "one-cold") {
			t.Errorf("%s: %v reads of the bucket", s.Name, *s.Reads)
		}
		if s.Name == "one-cold" && (s.Trips == nil || *s.Trips < 2 || *s.Series == 0) {
			t.Errorf("%s: trips %v, series %v", s.Name, s.Trips, s.Series)
		}
		for _, cache := range []string{"series sets", "label answers"} {
			if hit := slices.ContainsFunc(s.Hits, func(h report.Hits) bool {
				return h.Cache == cache
			}); hit && s.Name == "one-cold" || !hit && !cold {
				t.Errorf("%s: hits %+v", s.Name, s.Hits)
			}
		}
	}
	for _, row := range []string{"total client", "first_frame client", "gate gateway",
		"postings gateway", "chunks gateway"} {
		if !slices.ContainsFunc(a.Scenarios[0].Rows, func(r report.Row) bool {
			return r.Name+" "+r.Source == row && r.P50 > 0 && r.P50 <= r.Max
		}) {
			t.Errorf("no row %s in %+v", row, a.Scenarios[0].Rows)
		}
	}
	if b, err := os.ReadFile(page); err != nil || !strings.Contains(string(b), "<svg") {
		t.Errorf("the page: %v", err)
	}

	p := startProcess(t, folder(bucket))
	remote := filepath.Join(dir, "b.json")
	p.await("readiness changed.*ready=true")
	stdout, stderr, err = runBench(t, "--endpoint="+p.rpc.Target(), "--scenarios="+scenarios,
		"--json="+remote, "--metrics-url="+p.url+"/metrics")
	if err != nil {
		t.Fatalf("an endpoint: %v\n%s\n%s", err, stderr, stdout)
	}
	b := readReport(t, remote)
	if s := b.Scenarios[0]; s.Skipped == "" || s.Requests > 0 {
		t.Errorf("a cold scenario of an endpoint: %+v", s)
	}
	if s := b.Scenarios[2]; s.CPUSeconds == nil || s.Reads == nil || len(s.Hits) == 0 ||
		!slices.ContainsFunc(s.Rows, func(r report.Row) bool { return r.Source == "metrics" }) {
		t.Errorf("metrics of an endpoint are missing: %+v", s)
	}
	stdout, stderr, err = runBench(t, "--endpoint="+p.rpc.Target(), "--scenarios="+scenarios,
		"--only=both-warm")
	if err != nil || !strings.Contains(stdout, "only the client's times are known") ||
		strings.Contains(stdout, "metrics\n") {
		t.Errorf("an endpoint without metrics: %v\n%s\n%s", err, stderr, stdout)
	}

	stdout, _, err = runBench(t, "compare", result, remote)
	if err != nil || !strings.Contains(stdout, "total p99 ms") {
		t.Errorf("compare: %v\n%s", err, stdout)
	}
}

// TestBenchDisk: a cold scenario finds nothing on the disk that an earlier run has left, and
// prefetch is counted apart.
func TestBenchDisk(t *testing.T) {
	bucket, dir := wideBucket(t), t.TempDir()
	scenarios := write(t, "scenarios.yaml", benchScenarios)
	result := filepath.Join(dir, "a.json")
	var first *report.Report
	for run := range 2 {
		stdout, stderr, err := runBench(t, "--objstore.config="+folder(bucket), "--dir="+dir,
			"--scenarios="+scenarios, "--only=one-cold|both-warm", "--model=none",
			"--json="+result, "--", "--disk-cache-size=64MB")
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, stderr, stdout)
		}
		r := readReport(t, result)
		if run == 0 {
			first = r
		}
		cold, warm, before := &r.Scenarios[0], &r.Scenarios[1], &first.Scenarios[0]
		if *cold.Reads == 0 || *cold.Reads != *before.Reads || cold.PrefetchReads != nil ||
			slices.ContainsFunc(cold.Hits, func(h report.Hits) bool { return h.Tier == "disk" }) {
			t.Errorf("run %d: the cold scenario was not cold: %v reads, %+v", run, *cold.Reads,
				cold.Hits)
		}
		if *warm.Reads != 0 {
			t.Errorf("run %d: %v reads of warm requests", run, *warm.Reads)
		}
		if run == 0 && (warm.PrefetchReads == nil || *warm.PrefetchReads == 0 ||
			!strings.Contains(stdout, "prefetch since the start, apart: ")) {
			t.Errorf("prefetch is not reported:\n%s", stdout)
		}
	}
}

func readReport(t *testing.T, path string) *report.Report {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := &report.Report{}
	if err := json.Unmarshal(b, r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestBenchFlags checks that flags without effect and mistakes in documents are errors before
// anything is measured.
func TestBenchFlags(t *testing.T) {
	own := "--objstore.config=" + folder(t.TempDir())
	bad := write(t, "bad.yaml", "queries: [{name: q, serie: up}]")
	for _, c := range []struct {
		want string
		args []string
	}{
		{"--profile has no effect with --objstore.config", []string{own, "--profile=many"}},
		{"--metrics-url needs --endpoint", []string{"--metrics-url=http://127.0.0.1:1/"}},
		{"mutually exclusive", []string{own, "--endpoint=127.0.0.1:1"}},
		{"have no effect with --endpoint", []string{"--endpoint=127.0.0.1:1", "--model=s3"}},
		{"--model.errors needs --model=s3", []string{own, "--model.errors=0.1"}},
		{"unknown key serie, did you mean series?", []string{"--scenarios=" + bad}},
		{"--budgets " + bad, []string{"--budgets=" + bad}},
		{"store flags after --: unknown long flag '--no-such-flag'",
			[]string{own, "--", "--no-such-flag"}},
		{"--tune-time needs --tune", []string{own, "--tune-time=1m"}},
		{"--tune has no effect with --endpoint", []string{"--endpoint=127.0.0.1:1", "--tune"}},
		{"--tune and --replay are mutually exclusive", []string{own, "--tune", "--replay=log"}},
		{"--only: no scenario is selected: the scenarios are alert-cold, ",
			[]string{own, "--tune", "--only=nothing"}},
		{"--only: no scenario is selected: the scenarios are alert-cold, ",
			[]string{own, "--only=nothing"}},
		{"--json: open /no/such/", []string{own, "--json=/no/such/file"}},
		{"--html: open /no/such/", []string{own, "--html=/no/such/file"}},
		{"--json: open /no/such/", []string{"curves", "trace", "--json=/no/such/file"}},
	} {
		stdout, stderr, err := runBench(t, c.args...)
		if err == nil || !strings.Contains(stderr, c.want) || stdout != "" {
			t.Errorf("%v: %v, want %q\n%s%s", c.args, err, c.want, stdout, stderr)
		}
	}
}
