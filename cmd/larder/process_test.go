package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"larder/benchmarks/dataset"
	"larder/store/storepb"
)

// process is a running `larder store`.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner
	seen  []string
	next  int // of seen, the first line that await has not looked at
	rpc   *grpc.ClientConn
	url   string
}

// folder is the configuration of a bucket in a folder.
func folder(dir string) string { return "{type: FILESYSTEM, config: {directory: " + dir + "}}" }

// startProcess starts larder over a bucket and waits until it listens. The process is killed with
// the test.
func startProcess(t *testing.T, bucket string, args ...string) *process {
	t.Helper()
	return startLarder(t, nil, append([]string{
		"store", "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0",
		"--objstore.config=" + bucket,
	}, args...)...)
}

// startLarder starts larder with an environment and with arguments that make it listen on loopback.
func startLarder(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := launch(t, func(ctx context.Context) *exec.Cmd { return larder(ctx, env, args...) })
	p.listens()
	return p
}

// patience bounds each wait for a process. It is long, because a loaded machine needs minutes for
// what takes seconds otherwise.
const patience = 5 * time.Minute

// launch starts a command, which is killed with the test.
func launch(t *testing.T, command func(context.Context) *exec.Cmd) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	p := &process{t: t, cmd: command(ctx)}
	p.cmd.Dir = t.TempDir() // of the default --data-dir, too
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewScanner(stderr)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel() // kills it if it still runs
		_ = p.cmd.Wait()
		if t.Failed() {
			t.Logf("its log:\n%s", strings.Join(p.seen, "\n"))
		}
	})
	return p
}

// listens waits until the process listens.
func (p *process) listens() {
	p.t.Helper()
	// The two lines come in either order.
	var rpcAddress, httpAddress string
	for rpcAddress == "" || httpAddress == "" {
		line := p.await(`"serving gRPC"|"Listening on"`)
		address := addressIn(line)
		if strings.Contains(line, "gRPC") {
			rpcAddress = address
		} else {
			httpAddress = address
		}
	}
	p.next = 0 // what came between them is still to be awaited
	p.url = "http://" + httpAddress
	p.dial(rpcAddress)
}

// addressIn returns what a line of the log says that a port listens on.
func addressIn(line string) string {
	return regexp.MustCompile(`address"?[=:]"?([^\s"]+)`).FindStringSubmatch(line)[1]
}

// dial makes a client.
func (p *process) dial(address string) {
	p.t.Helper()
	// The window does not grow, so that a client that does not read blocks the server.
	rpc, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
	if err != nil {
		p.t.Fatal(err)
	}
	p.rpc = rpc
	p.t.Cleanup(func() { _ = rpc.Close() }) // not what is tested
}

// await reads the log up to a line that matches, and returns it.
func (p *process) await(pattern string) string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	for p.next < len(p.seen) || p.lines.Scan() {
		if p.next == len(p.seen) {
			p.seen = append(p.seen, p.lines.Text())
		}
		line := p.seen[p.next]
		p.next++
		if re.MatchString(line) {
			return line
		}
	}
	p.t.Fatalf("the log ended without %q", pattern)
	return ""
}

// exit waits for the end of the process and returns its exit code.
func (p *process) exit() int {
	p.t.Helper()
	for p.lines.Scan() {
		p.seen = append(p.seen, p.lines.Text())
	}
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) get(path string) (code int, body string) {
	p.t.Helper()
	resp, err := http.Get(p.url + path)
	if err != nil {
		p.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func (p *process) info() error {
	_, err := storepb.NewInfoClient(p.rpc).Info(p.t.Context(), &storepb.InfoRequest{})
	return err
}

// series requests everything. The answer has some megabytes.
func (p *process) series() storepb.Store_SeriesClient {
	p.t.Helper()
	stream, err := storepb.NewStoreClient(p.rpc).Series(p.t.Context(), &storepb.SeriesRequest{
		MinTime: math.MinInt64, MaxTime: math.MaxInt64,
		Matchers: []*storepb.LabelMatcher{
			{Type: storepb.LabelMatcher_EQ, Name: "__name__", Value: dataset.WholeMetricName},
		},
		Aggregates: []storepb.Aggr{storepb.Aggr_RAW},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return stream
}

// countSeries reads a stream to its end.
func countSeries(t *testing.T, stream storepb.Store_SeriesClient) (series int) {
	t.Helper()
	for {
		resp, err := stream.Recv()
		if err == io.EOF {
			return series
		}
		if err != nil {
			t.Fatalf("after %d series: %v", series, err)
		}
		if resp.GetSeries() != nil {
			series++
		}
	}
}

const wideSeries = 4000

func wideBucket(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := dataset.WholeMetric("wide", 1, wideSeries, 30_000).
		Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestReadinessFollowsTheBucket(t *testing.T) {
	// An S3 bucket without objects, which fails at first.
	var down atomic.Bool
	down.Store(true)
	s3 := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(
			w,
			`<?xml version="1.0"?><ListBucketResult><Name>blocks</Name><IsTruncated>false</IsTruncated></ListBucketResult>`,
		)
	}))
	defer s3.Close()
	p := startProcess(
		t,
		"{type: S3, config: {bucket: blocks, endpoint: "+s3.Listener.Addr().String()+
			", insecure: true, region: r, access_key: a, secret_key: s, max_retries: 1}}",
	)
	p.await("sync failed")
	if code, body := p.get("/-/ready"); code != http.StatusServiceUnavailable ||
		strings.TrimSpace(body) != "NOT OK" {
		t.Errorf("/-/ready without a bucket: got %d %q", code, body)
	}
	if code, body := p.get("/-/healthy"); code != http.StatusOK || body != "OK" {
		t.Errorf("/-/healthy without a bucket: got %d %q", code, body)
	}
	if err := p.info(); status.Code(err) != codes.Unavailable ||
		!strings.Contains(err.Error(), "Not ready") {
		t.Errorf("Info without a bucket: got %v", err)
	}

	down.Store(false) // no restart is needed
	p.await("readiness changed.*ready=true")
	if code, body := p.get("/-/ready"); code != http.StatusOK || body != "OK" {
		t.Errorf("/-/ready: got %d %q", code, body)
	}
	if err := p.info(); err != nil {
		t.Errorf("Info: %v", err)
	}

	_, metrics := p.get("/metrics")
	for _, want := range []string{
		`thanos_objstore_bucket_operations_total{bucket="blocks",operation="iter"}`,
		`thanos_objstore_bucket_operation_failures_total{`,
		`thanos_objstore_bucket_operation_duration_seconds_bucket{`,
		`thanos_bucket_store_block_loads_total`,
		`thanos_bucket_store_block_load_failures_total 0`,
		`thanos_bucket_store_block_drop_failures_total 0`,
		`thanos_bucket_store_series_gate_duration_seconds`,
		`thanos_blocks_meta_syncs_total`,
		`thanos_status{check="ready",component="store"} 1`,
		`grpc_server_handled_total{grpc_code="Unavailable",grpc_method="Info"`,
		`larder_build_info{`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	p.signal(syscall.SIGINT)
	if code := p.exit(); code != 0 {
		t.Errorf("got exit code %d", code)
	}
}

func TestRunningRequestsFinish(t *testing.T) {
	p := startProcess(t, folder(wideBucket(t)), "--drain-delay=0s", "--wait-headers=200y")
	p.await("readiness changed.*ready=true")
	stream := p.series()
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGTERM)
	p.await("msg=stopping")
	if got, want := 1+countSeries(t, stream), wideSeries; got != want {
		t.Errorf("got %d series, want %d", got, want)
	}
	if code := p.exit(); code != 0 {
		t.Errorf("got exit code %d", code)
	}
}

// TestThanosFlagsTakeEffect gives one process flags that it shares with Thanos, and looks at what
// each of them does.
func TestThanosFlagsTakeEffect(t *testing.T) {
	p := startLarder(
		t,
		[]string{"DEBUG=1"},
		"--debug.name=shard-0",
		"--log.format=json", // flags of all commands, before the command
		"store",
		"--http-address=127.0.0.1:0",
		"--grpc-address=127.0.0.1:0",
		"--objstore.config="+folder(wideBucket(t)),
		"--no-cache-index-header",
		"--data-dir=none",
		"--matcher-cache-size=100",
		"--debug.series-batch-size=500",
		"--index-cache.config={type: IN-MEMORY, config: {max_size: 1KB}}",
		"--store.caching-bucket.config={type: IN-MEMORY, config: {max_size: 3MB}, chunk_subrange_size: 16000, metafile_content_ttl: 1h}",
	)
	p.await(`"ready":true`)
	for _, line := range p.seen {
		if !strings.Contains(line, `"name":"shard-0"`) {
			t.Errorf("a line without the name: %s", line)
		}
	}
	log := strings.Join(p.seen, "\n")
	for _, want := range []string{
		`"msg":"flag accepted without effect","name":"shard-0","flag":"--debug.series-batch-size","why":"series are read by bytes`,
		`"msg":"flag accepted without effect","name":"shard-0","flag":"--store.caching-bucket.config","key":"metafile_content_ttl"`,
		`"msg":"flag accepted, its value adjusted","name":"shard-0","flag":"--store.caching-bucket.config","key":"chunk_subrange_size","why":"pages are a power of two: 16KiB"`,
		`"msg":"memory","name":"shard-0","index_pages":"1KiB","expanded_postings":"0B","series_sets":"0B","chunk_pages":"3MiB","header_blocks":`,
		`"msg":"memory: cache is too small to be effective","name":"shard-0","kind":"index_pages","size":"1KiB","least":"1MiB","raise":"--index-cache.config max_size"`,
	} {
		if strings.Count(log, want) != 1 {
			t.Errorf("the log says %d times: %s", strings.Count(log, want), want)
		}
	}

	// A tiny index cache causes more reads, but the same answers.
	for range 2 {
		stream, err := storepb.NewStoreClient(p.rpc).Series(t.Context(), &storepb.SeriesRequest{
			MinTime: math.MinInt64, MaxTime: math.MaxInt64,
			Matchers: []*storepb.LabelMatcher{
				{
					Type:  storepb.LabelMatcher_RE,
					Name:  "__name__",
					Value: dataset.WholeMetricName + "|none",
				},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := countSeries(t, stream), wideSeries; got != want {
			t.Errorf("got %d series, want %d", got, want)
		}
	}
	if left, err := os.ReadDir(p.cmd.Dir); err != nil || len(left) > 0 {
		t.Errorf("without headers on disk there are files: %v, %v", left, err)
	}
	_, metrics := p.get("/metrics")
	for _, want := range []string{"thanos_matchers_cache_hits_total 1",
		"thanos_matchers_cache_requests_total 2", "thanos_matchers_cache_max_items 100"} {
		if !strings.Contains(metrics, want+"\n") {
			has := regexp.MustCompile(`(?m)^thanos_matchers_cache.*$`).FindAllString(metrics, -1)
			t.Errorf("/metrics lacks %s: it has %q", want, has)
		}
	}
	if _, profile := p.get("/debug/pprof/mutex?debug=1"); !strings.Contains(
		profile, "sampling period=10\n",
	) {
		t.Errorf("the mutex profile is not on: %.200s", profile)
	}
}

// TestConnectionsEnd checks that a connection is closed at its maximum age and that its client
// reconnects.
func TestConnectionsEnd(t *testing.T) {
	p := startProcess(t, folder(t.TempDir()), "--grpc-server-max-connection-age=200ms")
	p.await("readiness changed.*ready=true")
	for range 2 {
		if err := p.info(); err != nil {
			t.Fatal(err)
		}
		for state := p.rpc.GetState(); state == connectivity.Ready; state = p.rpc.GetState() {
			p.rpc.WaitForStateChange(t.Context(), state)
		}
	}
}

// TestGateFlags checks that only the configured number of requests wait while one runs.
func TestGateFlags(t *testing.T) {
	f := func(want codes.Code, text string, args ...string) {
		t.Helper()
		p := startProcess(
			t,
			folder(wideBucket(t)),
			append(args, "--store.grpc.series-max-concurrency=1")...)
		p.await("readiness changed.*ready=true")
		running := p.series() // is not read, so that it does not end
		if _, err := running.Recv(); err != nil {
			t.Fatal(err)
		}
		// Both come to the gate. Which of them finds the queue full is not known, if it is full.
		results := make(chan error, 2)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range 2 {
			go func() {
				stream, err := storepb.NewStoreClient(p.rpc).Series(ctx, &storepb.SeriesRequest{
					MaxTime: math.MaxInt64, SkipChunks: true,
					Matchers: []*storepb.LabelMatcher{
						{Type: storepb.LabelMatcher_EQ, Name: "__name__", Value: "none"},
					},
				})
				if err == nil {
					_, err = stream.Recv()
				}
				results <- err
			}()
		}
		if err := <-results; status.Code(err) != want || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: got %v, want %s with %q", args, err, want, text)
		}
	}
	f(codes.ResourceExhausted, "1 requests wait for one", "--store.grpc.series-max-waiting=1")
	f(
		codes.Unavailable, "all 1 places for Series requests are taken",
		"--store.grpc.series-fail-fast",
	)
}

func TestServesOnWhileQueriersNotice(t *testing.T) {
	p := startProcess(t, folder(wideBucket(t)), "--drain-delay=1h", "--chunk-pool-size=1GB")
	p.await("readiness changed.*ready=true")
	if log := strings.Join(p.seen, "\n"); strings.Count(log, "flag accepted without effect") != 1 ||
		!strings.Contains(log, "flag=--chunk-pool-size") {
		t.Error("the flag without effect is not mentioned, or others are")
	}
	p.signal(syscall.SIGTERM)
	p.await("readiness changed.*ready=false")
	if code, _ := p.get("/-/ready"); code != http.StatusServiceUnavailable {
		t.Errorf("/-/ready: got %d", code)
	}
	if err := p.info(); status.Code(err) != codes.Unavailable {
		t.Errorf("Info: got %v", err)
	}
	if got, want := countSeries(t, p.series()), wideSeries; got != want {
		t.Errorf("got %d series, want %d", got, want)
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 1 || !strings.Contains(p.seen[len(p.seen)-1], "second signal") {
		t.Errorf("got exit code %d, last line %q", code, p.seen[len(p.seen)-1])
	}
}

// TestKilledAndStartedAgain checks that a process starts on the data directory of a killed one.
func TestKilledAndStartedAgain(t *testing.T) {
	bucket, data := folder(wideBucket(t)), t.TempDir()
	first := startProcess(t, bucket, "--data-dir="+data)
	first.await("blocks changed")
	first.signal(syscall.SIGKILL)
	if code := first.exit(); code != -1 {
		t.Errorf("got exit code %d of a killed process", code)
	}
	second := startProcess(t, bucket, "--data-dir="+data)
	second.await("readiness changed.*ready=true")
	if got, want := countSeries(t, second.series()), wideSeries; got != want {
		t.Errorf("got %d series, want %d", got, want)
	}
}
