package main

import (
	"strings"
	"testing"

	"larder/benchmarks/dataset"
)

// TestLatencyBudgets changes budgets while the process runs. A request over its budget is counted
// and logged as slow, although it is faster than --store.log-requests-longer-than. An unusable file
// changes nothing.
func TestLatencyBudgets(t *testing.T) {
	dir := t.TempDir()
	few := dataset.WholeMetric("few", 1, 3, 30_000)
	if _, err := few.Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	file := write(t, "budgets.yml",
		"requests: {series: {total: 1ns, chunks: 1h}}\nbucket_read: 2s")
	p := startProcess(t, folder(dir), "--latency-budgets-file="+file)
	p.await("bucket_read has no effect without hedging_config.* bucket_read=2s")
	p.await("readiness changed.*ready=true")
	ask := func() {
		t.Helper()
		if err := everyRPC(t.Context(), p.rpc, "kitchen"); err != nil {
			t.Fatal(err)
		}
	}
	p.metric(`larder_budget_seconds{method="Series",stage="chunks"} 3600`)
	p.metric(`larder_budget_seconds{method="LabelNames",stage="total"} 2`) // of the defaults
	ask()
	p.await("slow request.* method=/thanos.Store/Series .* tenant=kitchen .* over_budget=total")
	p.metric(`larder_budget_overruns_total{method="Series",stage="total"} 1`)
	p.metric(`larder_budget_overruns_total{method="Series",stage="chunks"} 0`)
	p.metric(`larder_budget_overruns_total{method="LabelNames",stage="total"} 0`)

	replace(t, file, []byte("requests: {series: {totl: 1ns}}"))
	p.await("configuration reload failed.* kind=latency-budgets .*--latency-budgets-file " + file +
		": line 1: requests.series: unknown key totl, did you mean total?")
	p.metric(`larder_config_last_reload_successful{kind="latency-budgets"} 0`)
	ask()
	p.metric(`larder_budget_overruns_total{method="Series",stage="total"} 2`)

	replace(t, file, []byte(
		"requests: {series: {total: 1h}, label_names: {total: 1ns}}\nbucket_read: 3s"))
	p.await("bucket_read has no effect without hedging_config.* bucket_read=3s")
	p.await("configuration reloaded.* kind=latency-budgets")
	ask()
	p.await("slow request.* method=/thanos.Store/LabelNames .* over_budget=total")
	p.metric(`larder_budget_overruns_total{method="Series",stage="total"} 2`)
	p.stop()
	for _, line := range p.seen {
		if strings.Contains(line, "slow request") && strings.Contains(line, "LabelValues") {
			t.Errorf("a request within its budget is logged: %s", line)
		}
	}
}

// TestBudgetsOfBench checks that a gateway accepts the file of larder bench.
func TestBudgetsOfBench(t *testing.T) {
	c := budgetsConfig{yaml: content{
		name: "latency-budgets", path: "../../benchmarks/budgets.yaml",
	}}
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	if c.parsed.Requests != c.defaults.Requests || c.parsed.Requests.Series.Total == 0 {
		t.Errorf("got %+v, want the defaults", c.parsed.Requests)
	}
}
