package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"larder/benchmarks/dataset"
	"larder/internal/faultstore/s3server"
	"larder/internal/memcached/memcachedtest"
	"larder/internal/telemetry/telemetrytest"
	"larder/store/storepb"
)

// covered is the part of a stage that spans must cover. Shorter stages than shortStage may have
// less: a few microseconds between two spans would count.
const (
	covered    = 0.95
	shortStage = time.Millisecond
)

const (
	tracedRounds = 3 // requests for blocks of their own, so that each of them is cold
	tracedSeries = 1000
	tracedBlocks = 3 // of each round
	hour         = int64(time.Hour / time.Millisecond)
)

// tracedBucket writes the blocks of all rounds. Those of a round have one time range.
func tracedBucket(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for round := range tracedRounds {
		for i := range tracedBlocks {
			seed := uint64(1 + round*tracedBlocks + i)
			l := dataset.WholeMetric(fmt.Sprint("traced", seed), seed, tracedSeries, 60_000)
			for i := range l.Blocks {
				l.Blocks[i].MinTime += int64(round) * 2 * hour
				l.Blocks[i].MaxTime += int64(round) * 2 * hour
			}
			if _, err := l.Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// tracedLarder is a process whose requests are all traced, without a bound on their spans.
type tracedLarder struct {
	*process
	collector *telemetrytest.Collector
}

func startTraced(
	t *testing.T, c *telemetrytest.Collector, bucket string, args ...string,
) *tracedLarder {
	t.Helper()
	// A request has thousands of spans, one for each frame. None may be dropped.
	env := []string{"OTEL_BSP_MAX_QUEUE_SIZE=100000"}
	p := startLarder(t, env, append([]string{
		"store", "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0",
		"--objstore.config=" + bucket, "--drain-delay=0s", "--warm.max-time=0s",
		fmt.Sprintf("--tracing.config={type: OTLP, config: {endpoint: %q, insecure: true, "+
			"spans_per_request: -1}}", c.Addr),
	}, args...)...)
	p.await("readiness changed.*ready=true")
	const dropped = `larder_trace_spans_dropped_total{reason="queue_full"} 0`
	if _, text := p.get("/metrics"); !strings.Contains(text, dropped) {
		t.Errorf("/metrics lacks %s", dropped)
	}
	return &tracedLarder{p, c}
}

// ask asks for the blocks of some rounds, and returns the id of the trace.
func (p *tracedLarder) ask(name string, from, to int) (trace string) {
	p.t.Helper()
	trace = fmt.Sprintf("%032x", name)[:32]
	ctx := metadata.AppendToOutgoingContext(p.t.Context(),
		"traceparent", "00-"+trace+"-00000000000000aa-01")
	stream, err := storepb.NewStoreClient(p.rpc).Series(ctx, &storepb.SeriesRequest{
		MinTime:    dataset.Epoch + int64(from)*2*hour,
		MaxTime:    dataset.Epoch + int64(to)*2*hour - 1,
		Matchers:   []*storepb.LabelMatcher{{Name: "__name__", Value: dataset.WholeMetricName}},
		Aggregates: []storepb.Aggr{storepb.Aggr_RAW},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	if n := countSeries(p.t, stream); n == 0 {
		p.t.Fatal("no series")
	}
	return trace
}

// cold asks for the blocks of each round by itself.
func (p *tracedLarder) cold(name string) (traces []string) {
	for i := range tracedRounds {
		traces = append(traces, p.ask(fmt.Sprintf("%c cold %d", name[0], i), i, i+1))
	}
	return traces
}

// warm asks for all blocks a few times.
func (p *tracedLarder) warm() (traces []string) {
	for i := range 5 {
		traces = append(traces, p.ask(fmt.Sprintf("memory %d", i), 0, tracedRounds))
	}
	return traces
}

// spanTree has the spans of one request.
type spanTree struct {
	root     telemetrytest.Span
	children map[string][]telemetrytest.Span // by the id of the parent
	stages   map[string][]telemetrytest.Span
	spans    []telemetrytest.Span
}

func readSpans(t *testing.T, c *telemetrytest.Collector, id string) *spanTree {
	t.Helper()
	tr := &spanTree{
		children: map[string][]telemetrytest.Span{}, stages: map[string][]telemetrytest.Span{},
		spans: c.Trace(id),
	}
	for _, s := range tr.spans {
		if s.Name == "thanos.Store/Series" {
			tr.root = s
		}
		tr.children[s.Parent()] = append(tr.children[s.Parent()], s)
		stage := s.Attribute("larder.stage").GetStringValue()
		switch s.Name {
		case "bucket_store_series": // has the others, and the time between them
			continue
		case "open index header", "build index header", "index_header_shared":
			stage = "header"
		}
		if stage != "" {
			tr.stages[stage] = append(tr.stages[stage], s)
		}
	}
	if tr.root.Span == nil {
		t.Fatalf("no span of a Series request in trace %s, which has %d spans", id, len(tr.spans))
	}
	return tr
}

func took(s telemetrytest.Span) time.Duration {
	return time.Duration(s.EndTimeUnixNano - s.StartTimeUnixNano)
}

// union returns how much of the time from one moment to another spans cover.
func union(spans []telemetrytest.Span, from, to uint64) (total time.Duration) {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b telemetrytest.Span) int {
		return cmp.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano)
	})
	for _, s := range spans {
		from = max(from, s.StartTimeUnixNano)
		if end := min(s.EndTimeUnixNano, to); end > from {
			total += time.Duration(end - from)
			from = end
		}
	}
	return total
}

// part is a time and how much of it spans cover. It may be that of several spans.
type part struct {
	took, covered time.Duration
	spans         []time.Duration
}

// short returns whether a part is too short to be judged. Windows in memory take less than
// shortStage each: one that takes longer has waited for a processor.
func (p *part) short() bool {
	if len(p.spans) == 0 {
		return p.took < shortStage
	}
	slices.Sort(p.spans)
	return p.spans[len(p.spans)/2] < shortStage
}

// parts returns the stages of a request, and the spans that have children by their name.
func (tr *spanTree) parts() map[string]part {
	out := map[string]part{}
	seconds := func(stage string) time.Duration {
		v := tr.root.Attribute("larder.stage_" + stage + "_seconds").GetDoubleValue()
		return time.Duration(v * float64(time.Second))
	}
	for _, stage := range []string{
		"gate", "header", "postings", "series", "chunks", "send", "flow_control",
	} {
		d, spans := seconds(stage), tr.stages[stage]
		if stage == "send" { // its spans include the waits for the client
			d += seconds("flow_control")
			spans = slices.Concat(spans, tr.stages["flow_control"])
		}
		got := union(spans, tr.root.StartTimeUnixNano, tr.root.EndTimeUnixNano)
		out["stage "+stage] = part{took: d, covered: got}
	}
	for _, s := range tr.spans {
		switch s.Name {
		case "thanos.Store/Series", "bucket_store_preload_all", "bucket_store_series",
			"bucket_store_first_series", "bucket_store_fetch_window":
			all := out["span "+s.Name]
			all.spans = append(all.spans, took(s))
			all.took += took(s)
			all.covered += union(tr.children[s.ID()], s.StartTimeUnixNano, s.EndTimeUnixNano)
			out["span "+s.Name] = all
		}
	}
	return out
}

// checkCoverage checks what takes shortStage or longer in most of some requests of one kind. The
// best request counts: a moment without a processor costs one request some percent, and a span that
// is missing costs all of them.
func checkCoverage(t *testing.T, kind string, traces []*spanTree, want ...string) {
	t.Helper()
	times, coverage := map[string][]time.Duration{}, map[string][]float64{}
	for _, tr := range traces {
		for what, p := range tr.parts() {
			times[what] = append(times[what], p.took)
			if !p.short() {
				coverage[what] = append(coverage[what], float64(p.covered)/float64(p.took))
			}
		}
	}
	for what, all := range coverage {
		if 2*len(all) <= len(traces) {
			continue
		}
		slices.Sort(all)
		slices.Sort(times[what])
		median, best := all[len(all)/2], all[len(all)-1]
		t.Logf("%s: %s took %v, of which spans cover %.1f %%, at best %.1f %%", kind, what,
			times[what][len(times[what])/2], 100*median, 100*best)
		if best < covered {
			t.Errorf("%s: spans cover %.1f %% of %s", kind, 100*best, what)
		}
	}
	for _, what := range want {
		if 2*len(coverage[what]) <= len(traces) {
			t.Errorf("%s: most requests spent less than %v in %s", kind, shortStage, what)
		}
	}
}

// pagesFrom adds up an attribute of requests: the pages that came from a tier.
func pagesFrom(tier string, traces []*spanTree) (pages int64) {
	for _, tr := range traces {
		pages += tr.root.Attribute("larder.pages_" + tier).GetIntValue()
	}
	return pages
}

// TestSpansCoverStages follows requests to a collector over OTLP: cold from the bucket, from
// memory, and after a start from memcached and from the disk. Spans cover the time of each stage.
// Reads of the bucket are below the stage that waited, and end when their body has been read. The
// resource names the version and the process, and histograms have exemplars.
func TestSpansCoverStages(t *testing.T) {
	s3, err := s3server.Start(s3server.Options{
		Dir:     tracedBucket(t),
		Latency: s3server.Latency{FirstByte: firstByte, BytesPerSecond: bandwidth},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s3.Close() })
	memcached := memcachedtest.Start(t, memcachedtest.Options{})
	remote := "{type: TIERED, config: {in_memory: {max_size: 64MB}, memcached: {addresses: [" +
		memcached.Addr + "], timeout: 10s, min_timeout: 10s}}}"
	withMemcached := []string{
		"--index-cache.config=" + remote, "--store.caching-bucket.config=" + remote,
	}
	withDisk := []string{
		"--data-dir=" + t.TempDir(), "--disk-cache-size=100MB", "--disk-cache.prefetch-bytes=0",
	}
	c := telemetrytest.StartCollector(t)

	p := startTraced(t, c, s3.Config(), slices.Concat(withMemcached, withDisk)...)
	bucket := p.cold("bucket")
	memory := p.warm()
	exemplars(t, p, memory)
	for _, client := range []string{"index-cache", "caching-bucket"} {
		p.metric(`larder_memcached_pending_writes{name="` + client + `"} 0`)
	}
	p.stop()
	p = startTraced(t, c, s3.Config(), withMemcached...)
	fromMemcached := p.cold("memcached")
	p.stop()
	p = startTraced(t, c, s3.Config(), withDisk...)
	fromDisk := p.cold("disk")
	p.stop()

	read := func(ids []string) (traces []*spanTree) {
		for _, id := range ids {
			traces = append(traces, readSpans(t, c, id))
		}
		return traces
	}
	checkCoverage(t, "bucket", read(bucket), "span thanos.Store/Series", "stage postings",
		"stage series", "stage chunks")
	checkCoverage(t, "memory", read(memory), "span thanos.Store/Series", "stage send")
	checkCoverage(t, "memcached", read(fromMemcached), "span thanos.Store/Series", "stage chunks")
	// No stage is required: what the kernel still has of the files is read in less than 1 ms.
	checkCoverage(t, "disk", read(fromDisk), "span thanos.Store/Series")
	var names []string
	for tier, traces := range map[string][]*spanTree{
		"bucket": read(bucket), "memory": read(memory), "memcached": read(fromMemcached),
		"disk": read(fromDisk),
	} {
		for _, tr := range traces {
			for _, s := range tr.spans {
				names = append(names, s.Name)
			}
		}
		if pagesFrom(tier, traces) == 0 {
			t.Errorf("the requests that were to find pages there found none: %s", tier)
		}
		for _, tr := range traces {
			checkReads(t, tr)
			checkResource(t, tr)
		}
	}
	checkExplained(t, "observability.md", names)
}

const (
	firstByte = 10 * time.Millisecond
	bandwidth = 50 << 20
)

// checkReads checks that a trace has each read of the bucket, with the time of its body.
func checkReads(t *testing.T, tr *spanTree) {
	t.Helper()
	inStage := map[string]bool{}
	for _, s := range tr.spans {
		if s.Attribute("larder.stage") != nil {
			inStage[s.ID()] = true
		}
	}
	reads := int64(0)
	for _, s := range tr.spans {
		if s.Name != "bucket_getrange" || !inStage[s.Parent()] {
			continue // what builds of headers read is not of the request
		}
		reads++
		length := s.Attribute("length").GetIntValue()
		least := firstByte + time.Duration(length)*time.Second/bandwidth
		if took(s) < least*9/10 {
			t.Errorf("a read of %d bytes took %v, its body %v", length, took(s), least)
		}
		if len(s.Events) == 0 || s.Events[0].Name != "slot_acquired" {
			t.Errorf("the wait for a slot has no end: %v", s.Events)
		}
	}
	if want := tr.root.Attribute("larder.bucket_requests").GetIntValue(); reads != want {
		t.Errorf("%d spans of reads, %d reads", reads, want)
	}
}

func checkResource(t *testing.T, tr *spanTree) {
	t.Helper()
	for key, want := range map[string]string{
		"service.name": `^larder$`, "service.version": `.`, "service.instance.id": `-\d+$`,
	} {
		if got := tr.root.Resource[key]; !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s is %q", key, got)
		}
	}
}

// exemplars checks that histograms name some of these traces, by the label that the data source of
// Grafana's dashboards is told.
func exemplars(t *testing.T, p *tracedLarder, traces []string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "deploy", "grafana", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "- name: trace_id ") {
		t.Error("deploy/grafana/README.md names another label of exemplars")
	}
	for _, name := range []string{
		"grpc_server_handling_seconds", "larder_stage_duration_seconds",
		"larder_series_first_frame_seconds", "thanos_bucket_store_series_merge_duration_seconds",
		"thanos_bucket_store_series_get_all_duration_seconds",
	} {
		found := regexp.MustCompile(`(?m)^`+name+`_bucket\{.* # \{trace_id="([0-9a-f]{32})"\}`).
			FindAllSubmatch(text, -1)
		if !slices.ContainsFunc(found, func(m [][]byte) bool {
			return slices.Contains(traces, string(m[1]))
		}) {
			t.Errorf("%s has no exemplar with one of the last traces", name)
		}
	}
}
