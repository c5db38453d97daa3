package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"larder/benchmarks/dataset"
	"larder/internal/faultstore"
	"larder/internal/faultstore/s3server"
	"larder/internal/loopback"
	"larder/internal/memcached/memcachedtest"
	"larder/store/storepb"
)

// incident is a larder over a bucket that fails on command, and what Prometheus has seen of it.
type incident struct {
	*scrapes
	bucket string
	faults *faultstore.Faults
	s3     *s3server.Server
	p      *process
	syncs  time.Duration // between two syncs; 0 = 100 ms
}

func newIncident(t *testing.T) *incident {
	t.Helper()
	i := &incident{scrapes: newScrapes(t), bucket: t.TempDir(), faults: faultstore.New(1)}
	if _, err := dataset.WholeMetric("one", 1, 2000, 30_000).
		Write(t.Context(), i.bucket, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	var err error
	i.s3, err = s3server.Start(s3server.Options{Dir: i.bucket, Faults: i.faults})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.s3.Close() }) // not what is tested
	return i
}

// start starts larder. Its caches are so small that most requests read the bucket.
func (i *incident) start(args ...string) {
	i.t.Helper()
	i.p = startLarder(i.t, nil, append([]string{"store",
		"--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0", "--drain-delay=0s",
		"--objstore.config=" + i.s3.Config(), "--warm.max-time=0s",
		fmt.Sprint("--sync-block-duration=", cmp.Or(i.syncs, time.Second/10)),
		"--index-cache-size=64KB", "--index-cache.series-size=0", "--chunk-cache-size=64KB",
	}, args...)...)
}

// serving starts larder, waits until it is ready, and checks that no alert fires while it serves.
func (i *incident) serving(args ...string) {
	i.t.Helper()
	i.start(args...)
	i.p.await("readiness changed.*ready=true")
	i.during(time.Hour, func() {
		if err := i.ask(i.t.Context()); err != nil {
			i.t.Error(err)
		}
	})
	if firing := i.firing(); len(firing) > 0 {
		i.t.Errorf("before the fault fire %v", firing)
	}
}

// ask sends one Series request for everything, and reads its answer.
func (i *incident) ask(ctx context.Context) error {
	return i.askRange(ctx, math.MinInt64, math.MaxInt64)
}

// timeOut sends Series requests, which do not end before their deadline, until larder has counted
// one. It ends them later than the client does.
func (i *incident) timeOut(d time.Duration) {
	i.t.Helper()
	counted := func() float64 {
		return i.p.counted("grpc_server_handled_total", "grpc_code=DeadlineExceeded",
			"grpc_method=Series")
	}
	for before := counted(); counted() == before && !i.t.Failed(); {
		ctx, cancel := context.WithTimeout(i.t.Context(), d)
		if err := i.ask(ctx); status.Code(err) != codes.DeadlineExceeded {
			i.t.Errorf("a request that takes too long: %v", err)
		}
		cancel()
	}
}

// askRange sends one Series request for all series, and reads its answer.
func (i *incident) askRange(ctx context.Context, minT, maxT int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := storepb.NewStoreClient(i.p.rpc).Series(ctx, &storepb.SeriesRequest{
		MinTime: minT, MaxTime: maxT,
		Matchers: []*storepb.LabelMatcher{
			{Name: "__name__", Value: dataset.WholeMetricName},
		},
		Aggregates: []storepb.Aggr{storepb.Aggr_RAW},
	})
	for err == nil {
		_, err = stream.Recv()
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// during scrapes for so long. It calls happen every four minutes, so that rates over five minutes
// see each time that it happened.
func (i *incident) during(d time.Duration, happen func()) {
	i.t.Helper()
	for n := range int(d / scrapeStep) {
		if n%4 == 0 && happen != nil {
			happen()
		}
		i.scrape(i.p.metrics())
	}
}

// fire checks that these alerts fire, and no others but those that may.
func (i *incident) fire(want []string, may ...string) {
	i.t.Helper()
	firing := i.firing()
	for _, name := range want {
		if !firing[name] {
			i.t.Errorf("%s does not fire", name)
		}
		delete(firing, name)
	}
	for _, name := range may {
		delete(firing, name)
	}
	if len(firing) > 0 {
		i.t.Errorf("beside %v fire %v", want, slices.Sorted(maps.Keys(firing)))
	}
}

// exposes fails the test if larder does not come to expose this, a regular expression.
func (i *incident) exposes(pattern string) {
	i.t.Helper()
	re := regexp.MustCompile("(?m)^" + pattern + "$")
	ctx, cancel := context.WithTimeout(i.t.Context(), patience)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !re.MatchString(i.p.metrics()) {
		select {
		case <-again.C:
		case <-ctx.Done():
			i.t.Fatalf("/metrics lacks %s", pattern)
		}
	}
}

// gets has the operations of a bucket that read ranges.
var gets = []string{"get_range"}

// chunkFile returns whether an object is a chunk file.
func chunkFile(_, name string) bool { return strings.Contains(name, "/chunks/") }

// faultTests make the fault of each alert, and return the alerts that fire for it.
var faultTests = map[string]func(t *testing.T) []string{
	"larder is gone": func(t *testing.T) []string {
		i := newIncident(t)
		i.serving()
		i.p.stop()
		i.during(10*time.Minute, nil)
		want := []string{"LarderIsDown"}
		i.fire(want)
		return want
	},
	"the bucket is away at the start": func(t *testing.T) []string {
		i := newIncident(t)
		i.faults.Set(faultstore.Rule{Kind: faultstore.AccessDenied})
		i.start()
		i.exposes(`thanos_blocks_meta_sync_failures_total [1-9].*`)
		i.during(time.Hour, nil)
		want := []string{"LarderIsNotReady", "LarderSyncsAreIncomplete"}
		i.fire(want)
		return want
	},
	"a block is damaged": func(t *testing.T) []string {
		i := newIncident(t)
		i.serving()
		i.damage()
		i.during(20*time.Minute, func() {
			if err := i.ask(t.Context()); status.Code(err) != codes.Aborted {
				t.Errorf("a request to a damaged block: %v", err)
			}
		})
		want := []string{"LarderBlockIsDamaged", "LarderRequestsFail"}
		i.fire(want)
		return want
	},
	"the bucket throttles": func(t *testing.T) []string {
		i := newIncident(t)
		i.serving()
		i.during(time.Hour, func() {
			i.faults.Set(faultstore.Rule{Kind: faultstore.SlowDown, Ops: gets, Count: 1})
			if err := i.ask(t.Context()); err != nil {
				t.Error(err)
			}
		})
		want := []string{"LarderBucketThrottles"}
		i.fire(want)
		return want
	},
	"the bucket fails": func(t *testing.T) []string {
		i := newIncident(t)
		i.serving()
		i.faults.Set(faultstore.Rule{Kind: faultstore.ServerError, Ops: []string{"iter"}})
		failed := func() float64 { return i.p.counted("larder_bucket_gave_up_total") }
		i.during(12*time.Minute, func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			for before := failed(); failed() == before && ctx.Err() == nil; { // a few seconds
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
		want := []string{"LarderBucketReadsFail"}
		i.fire(want)
		return want
	},
	// The deadlines of clients end before larder gives up, which takes a minute.
	"the bucket fails longer than clients wait": func(t *testing.T) []string {
		i := newIncident(t)
		i.syncs = time.Hour // as rare beside reads as in a real process
		budgets := write(t, "budgets.yml", "requests: {series: {total: 100ms}}")
		i.serving("--latency-budgets-file=" + budgets)
		i.faults.Set(faultstore.Rule{Kind: faultstore.ServerError, Ops: gets})
		i.during(14*time.Minute, func() { i.timeOut(time.Second) })
		i.p.await("level=warn.*request failed.*code=DeadlineExceeded.*over_budget=total")
		if n := i.p.counted("larder_bucket_gave_up_total"); n > 0 {
			t.Errorf("larder gave up %v operations before the clients did", n)
		}
		want := []string{"LarderBucketReadsFail", "LarderRequestsFail"}
		i.fire(want, "LarderBudgetsAreExceeded")
		return want
	},
	"clients have short deadlines": func(t *testing.T) []string {
		i := newIncident(t)
		i.serving()
		i.faults.Set(faultstore.Rule{
			Kind: faultstore.SlowFirstByte, Ops: gets, Delay: time.Second,
		})
		i.during(time.Hour, func() { i.timeOut(300 * time.Millisecond) })
		i.fire(nil)
		return nil
	},
	"a block cannot be read": func(t *testing.T) []string {
		i := newIncident(t)
		i.serving()
		broken := filepath.Join(i.bucket, "01JZZZZZZZZZZZZZZZZZZZZZZZ")
		if err := os.Mkdir(broken, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(broken, "meta.json"), []byte("{"), 0o644); err != nil {
			t.Fatal(err)
		}
		i.exposes(`thanos_blocks_meta_synced\{state="corrupted-meta-json"\} 1`)
		i.during(time.Hour, nil)
		want := []string{"LarderBlocksAreSkipped"}
		i.fire(want, "LarderBlockIsDamaged")
		return want
	},
	"requests wait for a place": func(t *testing.T) []string {
		i := newIncident(t)
		i.serving("--store.grpc.series-max-concurrency=1")
		i.stalled(2)
		i.exposes(`larder_series_gate_waiting 1`)
		i.during(20*time.Minute, nil)
		want := []string{"LarderRequestsWaitForAPlace"}
		i.fire(want, "LarderRequestsWaitForMemory")
		return want
	},
	"requests wait for memory": func(t *testing.T) []string {
		i := newIncident(t)
		i.serving("--store.request-bytes=12MB")
		i.stalled(8)
		i.exposes(`larder_request_allowance_bytes\{state="waiting"\} [1-9].*`)
		i.during(20*time.Minute, nil)
		want := []string{"LarderRequestsWaitForMemory"}
		i.fire(want, "LarderRequestsWaitForAPlace")
		return want
	},
	"requests are too large": func(t *testing.T) []string {
		i := newIncident(t)
		limits := write(t, "limits.yml", "tenants: {exports: {request_bytes_ratio: 0.001}}")
		i.serving("--store.request-bytes=64MB", "--store.limits.config-file="+limits)
		ctx := metadata.AppendToOutgoingContext(t.Context(), "THANOS-TENANT", "exports")
		i.during(20*time.Minute, func() {
			if err := i.ask(ctx); status.Code(err) != codes.ResourceExhausted {
				t.Errorf("a request that is too large: %v", err)
			}
		})
		want := []string{"LarderRequestsLackMemory"}
		i.fire(want)
		return want
	},
	"requests take long": func(t *testing.T) []string {
		i := newIncident(t)
		budgets := write(t, "budgets.yml", "requests: {series: {total: 1h}}")
		i.serving("--latency-budgets-file=" + budgets)
		replace(t, budgets, []byte("requests: {series: {total: 1us}}"))
		i.exposes(`larder_budget_seconds\{method="Series",stage="total"\} 1e-06`)
		i.during(time.Hour, func() {
			if err := i.ask(t.Context()); err != nil {
				t.Error(err)
			}
		})
		want := []string{"LarderBudgetsAreExceeded"}
		i.fire(want)
		return want
	},
	"memcached is gone": func(t *testing.T) []string {
		i := newIncident(t)
		server := memcachedtest.Start(t, memcachedtest.Options{})
		i.serving("--store.caching-bucket.config={type: MEMCACHED, config: {addresses: [" +
			server.Addr + "]}}")
		server.Kill()
		ctx, cancel := context.WithCancel(t.Context())
		var load sync.WaitGroup
		load.Go(func() {
			for ctx.Err() == nil {
				_ = i.ask(ctx) // cancelled at the end
			}
		})
		i.exposes(`larder_memcached_breaker_state\{direction="read".*\} 2`)
		cancel()
		load.Wait()
		i.during(20*time.Minute, nil)
		want := []string{"LarderMemcachedIsNotUsed"}
		i.fire(want)
		return want
	},
	"the data directory is a link": func(t *testing.T) []string {
		i := newIncident(t)
		data := t.TempDir()
		if err := os.Symlink(t.TempDir(), filepath.Join(data, "larder")); err != nil {
			t.Fatal(err)
		}
		i.start("--data-dir="+data, "--disk-cache-size=100MB")
		i.p.await("readiness changed.*ready=true")
		i.during(20*time.Minute, nil)
		want := []string{"LarderDataDirIsNotUsed", "LarderDiskCacheIsOff"}
		i.fire(want)
		return want
	},
	"shards do not agree": func(t *testing.T) []string {
		i := newIncident(t)
		addresses, err := loopback.Reserve(2)
		if err != nil {
			t.Fatal(err)
		}
		file := write(t, "shards.yaml", "{epoch: 1, count: 2, zones: [a]}")
		start := func(address string) *process {
			return startLarder(t, []string{ordinalVariable + "=0"}, "store",
				"--grpc-address=127.0.0.1:0", "--http-address="+address,
				"--objstore.config="+i.s3.Config(), "--data-dir="+t.TempDir(),
				"--shard.config-file="+file, "--shard.zone=a", "--shard.start-wait=1s",
				"--shard.peers="+addresses[0], "--shard.peers="+addresses[1])
		}
		i.p = start(addresses[0])
		i.exposes(`larder_shard_started_alone 1`)
		i.exposes(`larder_shard_epoch\{state="next"\} 1`) // the second shard does not come
		start(addresses[1])
		i.exposes(`larder_shard_duplicates 1`)
		i.during(2*time.Hour, nil)
		want := []string{
			"LarderShardIsDuplicated", "LarderShardStartedAlone", "LarderShardsDoNotSettle",
		}
		i.fire(want, "LarderIsNotReady")
		return want
	},
	// What a real Querier reports then: TestQuerierSide of interop/shards.
	"Info of one member hangs": func(t *testing.T) []string {
		s := newScrapes(t)
		asks := func(groups int) {
			s.scrape(fmt.Sprintf("thanos_store_nodes_grpc_connections{store_type=\"store\"} %d\n",
				groups))
		}
		for range 30 {
			asks(3)
		}
		if firing := s.firing(); len(firing) > 0 {
			t.Errorf("before the fault fire %v", firing)
		}
		for range 10 {
			asks(2)
			asks(3) // the next member answers
		}
		want := []string{"LarderGroupIsNotQueried"}
		(&incident{scrapes: s}).fire(want)
		return want
	},
	"a configuration file is invalid": func(t *testing.T) []string {
		i := newIncident(t)
		file := write(t, "limits.yml", "tenants: {kitchen: {request_series: 100}}")
		i.serving("--store.limits.config-file=" + file)
		replace(t, file, []byte("tenants: {kitchen: {request_serious: 1}}"))
		i.p.await("configuration reload failed")
		i.during(10*time.Minute, nil)
		want := []string{"LarderConfigIsInvalid"}
		i.fire(want)
		return want
	},
	// A handler that panics stands in for a bug.
	"a request panics": func(t *testing.T) []string {
		f := startRPC(t, grpcConfig{},
			&fakeStore{series: func(storepb.Store_SeriesServer) error { panic("no bread") }},
			noTracing(t), nil)
		s := newScrapes(t)
		s.scrape(exposition(t, f.reg))
		stream, err := storepb.NewStoreClient(f.conn).
			Series(t.Context(), &storepb.SeriesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.Internal {
			t.Errorf("a request that panics: %v", err)
		}
		s.scrape(exposition(t, f.reg))
		want := []string{"LarderPanicked"}
		(&incident{scrapes: s}).fire(want)
		return want
	},
}

// damage overwrites the middle of each chunk file.
func (i *incident) damage() {
	i.t.Helper()
	files, err := filepath.Glob(filepath.Join(i.bucket, "*", "chunks", "*"))
	if err != nil || len(files) == 0 {
		i.t.Fatalf("%d chunk files, %v", len(files), err)
	}
	for _, name := range files {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			i.t.Fatal(err)
		}
		_, err = f.WriteAt(make([]byte, 4096), 16<<10)
		if err = errors.Join(err, f.Close()); err != nil {
			i.t.Fatal(err)
		}
	}
}

// stalled sends requests whose reads of chunks do not end before the test does.
func (i *incident) stalled(requests int) {
	i.t.Helper()
	i.faults.Set(
		faultstore.Rule{Kind: faultstore.StalledBody, Ops: gets, Match: chunkFile, At: -1},
	)
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range requests {
		all.Go(func() { _ = i.ask(ctx) }) // cancelled at the end
	}
	i.t.Cleanup(func() {
		cancel()
		all.Wait()
	})
}

// TestAlertsFire makes the fault of each alert. The alert fires for it, others do not, and none
// fires before.
func TestAlertsFire(t *testing.T) {
	t.Parallel()
	fired, ran := map[string]bool{}, 0
	for name, f := range faultTests {
		t.Run(name, func(t *testing.T) {
			ran++
			for _, alert := range f(t) {
				fired[alert] = true
			}
		})
	}
	for _, a := range readRules(t, "alerts.yaml") {
		if ran == len(faultTests) && !fired[a.Alert] && !t.Failed() {
			t.Errorf("no test makes the fault of %s", a.Alert)
		}
	}
}

// TestRunbook: docs/runbook.md has an entry for each alert, to which the alert links, and no other.
func TestRunbook(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "runbook.md"))
	if err != nil {
		t.Fatal(err)
	}
	var entries []string
	headings := regexp.MustCompile(`(?m)^## (Larder\w+)$`)
	for _, m := range headings.FindAllStringSubmatch(string(page), -1) {
		entries = append(entries, m[1])
	}
	var alerts []string
	for _, a := range readRules(t, "alerts.yaml") {
		alerts = append(alerts, a.Alert)
		want := "docs/runbook.md#" + strings.ToLower(a.Alert)
		if got := a.Annotations["runbook_url"]; got != want {
			t.Errorf("%s links to %q, want %q", a.Alert, got, want)
		}
		if a.Annotations["summary"] == "" {
			t.Errorf("%s has no summary", a.Alert)
		}
	}
	if !slices.Equal(entries, alerts) {
		t.Errorf("docs/runbook.md has entries %v, the alerts are %v", entries, alerts)
	}
	for _, part := range []string{"**Means.**", "**Look at.**", "**Do.**"} {
		if n := strings.Count(string(page), part); n != len(alerts) {
			t.Errorf("docs/runbook.md has %q %d times, want once for each of %d alerts", part, n,
				len(alerts))
		}
	}
}
