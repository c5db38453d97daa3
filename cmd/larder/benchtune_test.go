package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"larder/benchmarks/bench"
	"larder/benchmarks/bench/report"
	"larder/benchmarks/scenario"
	"larder/benchmarks/tune"
	"larder/internal/budget"
)

// TestTuningKnobs: larder store accepts every flag of every knob, within the memory ceiling. The
// value of the start is the default.
func TestTuningKnobs(t *testing.T) {
	for _, memory := range []int64{0, 512 << 20, 8 << 30} {
		b := &benchCommand{}
		b.tune.memory, b.tune.disk = memory, 10<<30
		b.yaml.inline = folder(t.TempDir())
		g := &benchGateway{args: b.gatewayArgs(t.TempDir())}
		knobs, err := b.tuningKnobs(g)
		if err != nil {
			t.Fatal(err)
		}
		if len(knobs) < 10 {
			t.Errorf("only %d knobs", len(knobs))
		}
		for _, k := range knobs {
			if len(k.Values[k.Start].Flags) > 0 || len(k.Values) < 2 {
				t.Errorf("%s: %+v", k.Name, k.Values)
			}
			for i, v := range k.Values {
				if want := i != k.Start && !k.Constant; want != (len(v.Flags) > 0) {
					t.Errorf("%s %s: flags %v", k.Name, v.Text, v.Flags)
				}
				args := b.gatewayArgs(t.TempDir())
				if strings.HasPrefix(k.Name, "hedging") && i != k.Start {
					args = slices.DeleteFunc(args, func(a string) bool {
						return strings.HasPrefix(a, "--objstore.config")
					})
				}
				conf, err := parseStore(slices.Concat(args, v.Flags)...)
				if err == nil {
					err = conf.load(time.Now())
				}
				if err == nil {
					_, err = conf.caches.Memory.Fit(memory)
				}
				if err != nil {
					t.Errorf("memory %d, %s %s: %v", memory, k.Name, v.Text, err)
				}
				if i != k.Start || len(v.Flags) > 0 || !strings.HasPrefix(k.Name, "--") {
					continue
				}
				if shown, ok := conf.shown()[k.Name[2:]]; ok && shown != "" && shown != v.Text {
					t.Errorf("%s starts with %s, its default is %s", k.Name, v.Text, shown)
				}
			}
		}
	}
}

// TestTuningDeadlines: deadlines are varied only with the cache that they bound. A fixed one
// reaches memcached.
func TestTuningDeadlines(t *testing.T) {
	const remote = "{type: MEMCACHED, config: {addresses: ['127.0.0.1:1'], timeout: 2s, " +
		"min_timeout: 500ms, dns_provider_update_interval: 1h}}"
	b := &benchCommand{storeArgs: []string{"--index-cache.config=" + remote}}
	b.yaml.inline = folder(t.TempDir())
	named := func(disk int64) (out map[string]knob) {
		b.tune.disk = disk
		knobs, err := b.tuningKnobs(&benchGateway{args: b.gatewayArgs(t.TempDir())})
		if err != nil {
			t.Fatal(err)
		}
		out = map[string]knob{}
		for _, k := range knobs {
			out[k.Name] = k
		}
		return out
	}
	if _, ok := named(0)["deadline of the disk cache"]; ok {
		t.Error("without a disk, its deadline is varied")
	}
	knobs := named(64 << 20)
	var fixed constants
	for name, of := range map[string]*time.Duration{
		"deadline of the disk cache": &fixed.disk, "deadline of memcached": &fixed.memcached,
	} {
		k, ok := knobs[name]
		if !ok {
			t.Errorf("%s is not varied", name)
			continue
		}
		for i, v := range k.Values {
			*of = 0
			k.set(&fixed, i)
			if i > 0 && v.Text != of.String() || i == 0 && *of != 0 {
				t.Errorf("%s %s sets %s", name, v.Text, *of)
			}
		}
	}
	g := &benchGateway{
		args: b.gatewayArgs(t.TempDir()), stderr: t.Output(),
		constants: constants{memcached: 30 * time.Millisecond},
	}
	started, _, err := g.open(bench.DiskKept)
	if err != nil {
		t.Fatal(err)
	}
	defer started.close()
	families, err := started.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var deadline float64
	for _, f := range families {
		if f.GetName() == "larder_memcached_read_deadline_seconds" {
			deadline = f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	if deadline != 0.03 {
		t.Errorf("the deadline of memcached is %v s, want 0.03", deadline)
	}
}

// TestTuningDisk: a setting with a disk cache is measured with what it has on disk after a restart.
// Each round fills an empty disk. Reads of prefetch are no reads of requests.
func TestTuningDisk(t *testing.T) {
	document, err := scenario.Parse([]byte(`
queries: [{name: one, series: '{__name__="${metric}",${label}="${value}"}', range: 2h}]
scenarios:
  - {name: cold, query: one, cache: cold, requests: 2, tune: 1}
  - {name: restart, query: one, cache: restart, concurrency: 2, requests: 8, tune: 1}
`))
	if err != nil {
		t.Fatal(err)
	}
	b, dir := &benchCommand{}, t.TempDir()
	b.tune.disk = 64 << 20
	b.yaml.inline = folder(wideBucket(t))
	g := &benchGateway{args: b.gatewayArgs(dir), stderr: t.Output()}
	knobs, err := b.tuningKnobs(g)
	if err != nil {
		t.Fatal(err)
	}
	o := bench.Options{
		Document: document, Budgets: &budget.Document{Quantile: 0.99}, Seed: 1,
		Start: g.start, HasDisk: true, Timeout: patience,
	}
	tn := &tuner{
		bench: b, gateway: g, options: o, dir: dir, knobs: knobs, tried: map[string]error{},
	}
	var without tune.Setting
	disk := -1
	for i, k := range knobs {
		without = append(without, k.Start)
		if k.Name == "--disk-cache-size" {
			disk = i
		}
	}
	with := slices.Clone(without)
	with[disk] = len(knobs[disk].Values) - 1
	reads := map[string]float64{}
	for _, round := range []struct {
		name    string
		setting tune.Setting
	}{{"with", with}, {"without", without}, {"with again", with}} {
		sample, err := tn.measure(t.Context(), round.setting, 1)
		if err != nil {
			t.Fatal(err)
		}
		for name, f := range sample.Load {
			reads[name+" "+round.name] = f.Reads
		}
	}
	// A disk that is too slow for a page on a busy machine leaves it to the bucket.
	few := reads["restart without"] / 2
	if few == 0 || reads["restart with"] >= few || reads["restart with again"] >= few ||
		reads["cold with"] == 0 || reads["cold with"] != reads["cold without"] ||
		reads["cold with again"] != reads["cold with"] {
		t.Errorf("reads of a request: %v", reads)
	}
}

// TestBenchTune searches for a few seconds. It keeps the flags that the user gave, and shows what
// it measured.
func TestBenchTune(t *testing.T) {
	dir := t.TempDir()
	scenarios := write(t, "scenarios.yaml", benchScenarios)
	result, page := filepath.Join(dir, "a.json"), filepath.Join(dir, "a.html")
	stdout, stderr, err := runBench(t, "--objstore.config="+folder(wideBucket(t)),
		"--scenarios="+scenarios, "--only=cold", "--model=s3", "--model.first-byte=1ms",
		"--tune", "--tune-time=6s", "--tune-memory=1GB", "--json="+result, "--html="+page,
		"--", "--index-cache.page-size=16KB")
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, stderr, stdout)
	}
	r := readReport(t, result).Tuning
	if r == nil || r.Runs == 0 || r.Verdict == "" || len(r.Load) != 2 ||
		r.Load[1].Start.Reads == 0 {
		t.Fatalf("%+v", r)
	}
	if !strings.Contains(stdout, r.Verdict) || !strings.Contains(stderr, " left\n") ||
		!strings.Contains(stdout, "memory: 1GiB") {
		t.Errorf("%s\n%s", stderr, stdout)
	}
	named := func(name string) bool {
		return slices.ContainsFunc(r.Knobs, func(k report.Knob) bool { return k.Name == name })
	}
	if named("--index-cache.page-size") || !named("--chunk-cache.page-size") ||
		!named("gaps of a plan") {
		t.Errorf("knobs: %+v", r.Knobs)
	}

	for _, args := range [][]string{{"budgets", result}, {"compare", result, result}} {
		stdout, stderr, err := runBench(t, args...)
		if err == nil || !strings.Contains(stderr, "a search (--tune)") || stdout != "" {
			t.Errorf("%s of a search: %v\n%s\n%s", args[0], err, stderr, stdout)
		}
	}

	stdout, stderr, err = runBench(t, "--objstore.config="+folder(wideBucket(t)),
		"--scenarios="+scenarios, "--only=one-cold", "--model=s3", "--model.first-byte=1ms",
		"--tune", "--tune-time=1ms", "--tune-usd=1e-9",
		"--budgets="+write(t, "budgets.yaml", "budgets: {one-cold: {total: 1ns}}"),
		"--json="+result)
	if err == nil || !strings.Contains(stderr, "more than --tune-usd=1e-09") ||
		!strings.Contains(stderr, "No setting that was measured keeps all budgets") {
		t.Errorf("a ceiling of nearly no dollars, and a budget of 1 ns: %v\n%s\n%s", err, stderr,
			stdout)
	}
	if r := readReport(t, result).Tuning; !r.Undecided ||
		!strings.HasPrefix(r.Verdict, "Nothing was decided: --tune-time is too short.") {
		t.Errorf("a millisecond decided something: %+v", r)
	}
	load := readReport(t, result).Tuning.Load
	if !load[0].Budgeted || load[0].Start.Over == 0 || load[0].Start.USD == 0 {
		t.Errorf("a budget of 1 ns is kept, or the prices are missing: %+v", load)
	}
}
