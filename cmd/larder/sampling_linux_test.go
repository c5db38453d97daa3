package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"larder/benchmarks/dataset"
	"larder/internal/requestlog"
	"larder/internal/telemetry"
	"larder/internal/telemetry/telemetrytest"
	"larder/store/storepb"
)

// processorTime returns the time that the threads of this process have run.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// processorTime returns the time that the threads of a process have run.
func (p *process) processorTime() (total time.Duration) {
	p.t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil || len(files) == 0 {
		p.t.Fatalf("no threads of the process: %v", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		n, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			p.t.Fatal(err)
		}
		total += time.Duration(n)
	}
	return total
}

// askFor asks for the series of a metric that match.
func askFor(t *testing.T, rpc *grpc.ClientConn, matchers []*storepb.LabelMatcher) {
	t.Helper()
	stream, err := storepb.NewStoreClient(rpc).Series(t.Context(), &storepb.SeriesRequest{
		MinTime: math.MinInt64, MaxTime: math.MaxInt64,
		Matchers: append([]*storepb.LabelMatcher{
			{Name: "__name__", Value: dataset.WholeMetricName},
		}, matchers...),
		Aggregates: []storepb.Aggr{storepb.Aggr_RAW},
	})
	for err == nil {
		_, err = stream.Recv()
	}
	if err != io.EOF {
		t.Fatal(err)
	}
}

// trimmedMean returns the mean of the middle half of values.
func trimmedMean(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	sum, from, to := 0.0, len(values)/4, len(values)-len(values)/4
	for _, v := range values[from:to] {
		sum += v
	}
	return sum / float64(to-from)
}

// interval returns what f says of all rounds, and the bounds of 95 % of what it says of 1,000
// resamples of n rounds.
func interval(n int, f func(rounds []int) float64) (value, low, high float64) {
	r := rand.New(rand.NewPCG(1, 2))
	rounds, said := make([]int, n), make([]float64, 1000)
	for i := range said {
		for k := range rounds {
			rounds[k] = r.IntN(n)
		}
		said[i] = f(rounds)
	}
	slices.Sort(said)
	for k := range rounds {
		rounds[k] = k
	}
	return f(rounds), said[25], said[974]
}

// samplingServers starts a gateway, and servers in front of it: one for each configuration of a
// sampler, without tracing for an empty one. It returns their clients, and a function that sends
// their remaining spans.
func samplingServers(
	t *testing.T, bucket string, c *telemetrytest.Collector, samplers []string,
) (clients []*grpc.ClientConn, flush func()) {
	t.Helper()
	tracing := func(sampler string) string {
		return fmt.Sprintf("{type: OTLP, config: {endpoint: %q, insecure: true, %s}}", c.Addr,
			sampler)
	}
	conf, err := parseStore("--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0",
		"--drain-delay=0s", "--data-dir="+t.TempDir(), "--objstore.config="+folder(bucket),
		"--tracing.config="+tracing("sampler_type: parentbasedneversample"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := newGateway(conf, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		g.close()
	})
	if err := waitReady(t.Context(), g.rpcListener.Addr().String(),
		g.backend.complete); err != nil {
		t.Fatal(err)
	}
	var traced []*telemetry.Tracing
	for _, sampler := range samplers {
		spans := noTracing(t)
		if sampler != "" {
			spans, err = telemetry.NewTracing(t.Context(), []byte(tracing(sampler)))
			if err != nil {
				t.Fatal(err)
			}
			traced = append(traced, spans)
		}
		logs := g.conf.requestLog.options(g.logger)
		srv, err := newRPCServer(conf.grpc, g.backend.services(), requestlog.New(nil, logs), logs,
			prometheus.NewRegistry(), spans)
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = srv.Serve(l) }() // until Stop
		rpc, err := grpc.NewClient(l.Addr().String(),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = rpc.Close() // not what is tested
			srv.Stop()
		})
		clients = append(clients, rpc)
	}
	return clients, func() {
		for _, spans := range traced {
			if err := spans.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestSamplingCost measures what tracing costs in processor time. Servers in front of one gateway
// answer the same warm requests in turns, for the time that LARDER_SAMPLING says: without tracing,
// once more without, for comparison, and with tracing of none and of a tenth of the requests. What
// tracing of 1 % costs follows: that of none, and a tenth of what a tenth adds. It includes sending
// the spans, and the collector. It is compared with what the requests cost a process without
// tracing. `make sampling` fails if it is certainly above 2 %. Without LARDER_SAMPLING the test
// takes a second, which is too short for a verdict: it checks that some requests have spans.
func TestSamplingCost(t *testing.T) {
	duration, long := time.Second, os.Getenv("LARDER_SAMPLING")
	if long != "" {
		var err error
		if duration, err = time.ParseDuration(long); err != nil {
			t.Fatalf("LARDER_SAMPLING: %v", err)
		}
	}
	bucket := wideBucket(t)
	c := telemetrytest.StartCollector(t)
	const off, again, none, tenth = 0, 1, 2, 3
	clients, flush := samplingServers(t, bucket, c, []string{
		none:  "sampler_type: parentbasedneversample",
		tenth: "sampler_type: parentbasedtraceidratiobased, sampler_param: '0.1'",
	})
	p := startProcess(t, folder(bucket), "--drain-delay=0s")
	p.await("readiness changed.*ready=true")
	for _, load := range []struct {
		name     string
		batch    int
		matchers []*storepb.LabelMatcher
	}{
		{"1 series", 20, []*storepb.LabelMatcher{
			{Name: "code", Value: "200"}, {Name: "handler", Value: "/healthz"},
			{Name: "method", Value: "GET"}, {Name: "instance", Value: "10.32.0.0:8080"},
		}},
		{"200 series", 10, []*storepb.LabelMatcher{{Name: "instance", Value: "10.32.0.0:8080"}}},
	} {
		t.Run(load.name, func(t *testing.T) {
			batch := func(rpc *grpc.ClientConn, n int) {
				for range n {
					askFor(t, rpc, load.matchers)
				}
			}
			for _, rpc := range append(slices.Clone(clients), p.rpc) {
				batch(rpc, 20*load.batch) // fills caches
			}
			var spent [tenth + 1][]float64 // by round: microseconds of a request
			var served []float64           // of the process
			us := func(d time.Duration) float64 {
				return float64(d.Nanoseconds()) / 1000 / float64(load.batch)
			}
			for end := time.Now().Add(duration / 2); time.Now().Before(end); {
				for _, i := range rand.Perm(len(clients)) {
					before := processorTime(t)
					batch(clients[i], load.batch)
					spent[i] = append(spent[i], us(processorTime(t)-before))
				}
				before := p.processorTime()
				batch(p.rpc, load.batch)
				served = append(served, us(p.processorTime()-before))
			}
			more := func(kind int, rounds []int) float64 { // than off, in % of a request
				extra, of := make([]float64, len(rounds)), make([]float64, len(rounds))
				for i, k := range rounds {
					extra[i], of[i] = spent[kind][k]-spent[off][k], served[k]
				}
				return 100 * trimmedMean(extra) / trimmedMean(of)
			}
			n := len(served)
			t.Logf("%d rounds of %d requests, %.0f us each", n, load.batch, trimmedMean(served))
			show := func(what string, f func(rounds []int) float64) (low float64) {
				value, low, high := interval(n, f)
				t.Logf("%s: %+.2f %%, 95 %% interval %+.2f to %+.2f %%", what, value, low, high)
				return low
			}
			show("off once more", func(r []int) float64 { return more(again, r) })
			show("0 % sampled", func(r []int) float64 { return more(none, r) })
			show("10 % sampled", func(r []int) float64 { return more(tenth, r) })
			low := show("1 % sampled", func(r []int) float64 {
				none := more(none, r)
				return none + (more(tenth, r)-none)/10
			})
			if long != "" && low > 2 {
				t.Error("sampling 1 % costs more than 2 %")
			}
		})
	}
	flush()
	if c.Len() == 0 {
		t.Error("the collector has no span")
	}
}
