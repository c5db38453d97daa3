package interop

import (
	std "cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/thanos-io/thanos/pkg/store/storepb"
	"google.golang.org/grpc/metadata"

	"larder/interop/internal/collector"
	"larder/interop/internal/compare/server"
	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/neighbour"
	"larder/interop/internal/process"
	"larder/interop/internal/programs"
)

func startCollector(t *testing.T) *collector.Collector {
	t.Helper()
	c, err := collector.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// tracingTo returns Thanos's flag for the collector.
func tracingTo(c *collector.Collector, service, sampler string) string {
	return fmt.Sprintf(
		"--tracing.config={type: OTLP, config: {client_type: grpc, insecure: true, endpoint: %q, service_name: %s, sampler_type: %s}}",
		c.Addr, service, sampler,
	)
}

func startTraced(t *testing.T, l *layout.Layout, c *collector.Collector) *gateway.Larder {
	t.Helper()
	ctx := context.Background()
	bin, err := gateway.BuildLarder(ctx, "..")
	if err != nil {
		t.Fatal(err)
	}
	// No sampler is named: larder follows the caller.
	g, err := gateway.StartLarder(
		ctx, bin, gateway.Bucket{Dir: l.Dir, DataDir: t.TempDir()}, tracingTo(c, "larder", `""`),
	)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// slowLine is a line "slow request" of larder's log.
type slowLine struct {
	Msg, Tenant, Matchers, TraceID string
	Duration                       float64
	BucketRequests                 int     `json:"bucket_requests"`
	Chunks                         float64 `json:"stage_chunks"`
}

// followed are a larder and the object store that it reads.
type followed struct {
	bucket *server.Bucket
	larder *gateway.Larder
}

// startFollowed starts larder over a remote S3 bucket. Its index headers are built, and it logs
// each request as slow.
func startFollowed(t *testing.T, l *layout.Layout, c *collector.Collector) followed {
	t.Helper()
	ctx := context.Background()
	bin, err := gateway.BuildLarder(ctx, "..")
	if err != nil {
		t.Fatal(err)
	}
	bucketBin, err := gateway.Build(ctx, "..", "./benchmarks/bucketserver")
	if err != nil {
		t.Fatal(err)
	}
	b, err := server.StartBucket(ctx, bucketBin, l.Dir,
		server.Latency{FirstByte: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	addrs, err := process.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	flags, err := gateway.Bucket{Config: b.Config, DataDir: t.TempDir()}.Flags()
	if err != nil {
		t.Fatal(err)
	}
	p, err := process.Start(ctx, process.Options{
		Name: "larder", Bin: bin, Ready: process.HTTP("http://" + addrs[1] + "/-/ready"),
		Args: append([]string{
			"--log.format=json", "store", "--grpc-address=" + addrs[0],
			"--http-address=" + addrs[1], "--drain-delay=0s", "--wait-headers=200y",
			"--store.log-requests-longer-than=1ns", tracingTo(c, "larder", `""`),
		}, flags...),
	})
	if err != nil {
		t.Fatal(err)
	}
	return followed{b, &gateway.Larder{Process: p, Addr: addrs[0], HTTPAddr: addrs[1]}}
}

// page returns a page of larder.
func (f *followed) page(t *testing.T, path string) string {
	t.Helper()
	resp, err := http.Get("http://" + f.larder.HTTPAddr + path)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
	return string(body)
}

// TestTraceOfASlowQueryLeadsToTheBucket follows one PromQL query from a real Querier to the object
// store: its trace continues in larder, the slow log and the overview name the trace, and the reads
// in the trace are those that the object store has answered. Explain shows that the next such query
// reads nothing.
func TestTraceOfASlowQueryLeadsToTheBucket(t *testing.T) {
	ctx := context.Background()
	c, l := startCollector(t), oneLayout(t)
	f := startFollowed(t, l, c)
	q, err := neighbour.StartQuerier(ctx, programs.Thanos(t), []string{f.larder.Addr},
		tracingTo(c, "querier", "alwayssample"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.bucket.Requests(ctx); err != nil { // those of the start
		t.Fatal(err)
	}
	b := l.Served()[0]
	s := b.Series[len(b.Series)/2]
	promQL := fmt.Sprintf("count({__name__=%q})", s.Labels.Get("__name__"))
	res, err := q.Instant(ctx, promQL, s.Chunks[0].Max, neighbour.Params{MaxSourceResolution: "1h"})
	if err != nil || res.Status != "success" {
		t.Fatalf("the query failed: %+v, %v", res, err)
	}
	t.Logf("1. query of the Querier: %s", promQL)
	answered, err := f.bucket.Requests(ctx)
	if err != nil {
		t.Fatal(err)
	}
	overview := f.page(t, "/")
	end := time.UnixMilli(s.Chunks[0].Max).UTC()
	explained := f.page(t, "/debug/explain?"+url.Values{
		"format": {"json"}, "max_resolution": {"1h"}, "end": {end.Format(time.RFC3339Nano)},
		"start":   {end.Add(-5 * time.Minute).Format(time.RFC3339Nano)},
		"match[]": {fmt.Sprintf("{__name__=%q}", s.Labels.Get("__name__"))},
	}.Encode())
	// Both send their remaining spans when they stop.
	stop(t, q)
	stop(t, f.larder)

	line := slowSeries(t, f.larder.Log())
	if line.BucketRequests == 0 || line.TraceID == "" || !strings.Contains(overview, line.TraceID) {
		t.Errorf("the line %+v reads nothing, or the overview does not name its trace", line)
	}
	request, reads := requestOf(t, c.Spans(), line.TraceID)
	t.Logf("3. span %s of larder, below the Querier's: %v", request.Name, lasted(request))
	var want, got []string
	for _, r := range answered {
		if strings.HasSuffix(r.Key, "/index") || strings.Contains(r.Key, "/chunks/") {
			want = append(want, fmt.Sprintf("%s at %d, %d bytes", r.Key, r.Offset, r.Bytes))
		}
	}
	for _, r := range reads {
		a := attributes(r)
		one := fmt.Sprintf("%s at %s, %s bytes", a["object"], a["offset"], a["length"])
		got = append(got, one)
		t.Logf("4. read of the bucket: %s, %v", one, lasted(r))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(got) != line.BucketRequests {
		t.Errorf("the log has %d reads, the trace %d, the object store answered (-) and the "+
			"trace shows (+)\n%s", line.BucketRequests, len(got), diff)
	}
	var e struct {
		Total struct {
			Sum struct{ Needed, Read struct{ Requests int } }
		}
	}
	if err := json.Unmarshal([]byte(explained), &e); err != nil {
		t.Fatal(err)
	}
	t.Logf("5. explain: %d requests with empty caches, %d now", e.Total.Sum.Needed.Requests,
		e.Total.Sum.Read.Requests)
	if e.Total.Sum.Needed.Requests == 0 || e.Total.Sum.Read.Requests != 0 {
		t.Errorf("explain: %s", explained)
	}
	t.Logf("proved: one query of a real Querier is followed to its %d reads of an S3 bucket by "+
		"trace, slow log, overview and explain", len(got))
}

// slowSeries returns the line of the Series request in a log.
func slowSeries(t *testing.T, log string) (line slowLine) {
	t.Helper()
	found := 0
	for text := range strings.Lines(log) {
		if !strings.Contains(text, `"slow request"`) || !strings.Contains(text, "Store/Series") {
			continue
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		t.Logf("2. larder's log: %s", text)
		found++
	}
	if found != 1 {
		t.Fatalf("%d lines of a slow Series request in\n%s", found, log)
	}
	return line
}

// requestOf returns larder's span of the Series request of a trace, whose parent is a span of the
// Querier, and the reads of the bucket below it.
func requestOf(
	t *testing.T, spans []collector.Span, traceID string,
) (request collector.Span, reads []collector.Span) {
	t.Helper()
	byID := map[string]collector.Span{}
	for _, s := range spans {
		if s.Trace() == traceID {
			byID[s.ID()] = s
		}
	}
	for _, s := range byID {
		if s.Service == "larder" && s.Name == "thanos.Store/Series" {
			request = s
		}
		if s.Service == "larder" && s.Name == "bucket_getrange" {
			reads = append(reads, s)
		}
	}
	if request.Span == nil || byID[request.Parent()].Service != "querier" {
		t.Fatalf("%d spans of trace %s: none is larder's below the Querier's", len(byID), traceID)
	}
	for _, s := range append(reads, request) {
		for s.Parent() != "" {
			parent, ok := byID[s.Parent()]
			if !ok {
				t.Fatalf("the trace does not lead from %s to a root", s.Name)
			}
			s = parent
		}
	}
	slices.SortFunc(reads, func(a, b collector.Span) int {
		return std.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano)
	})
	return request, reads
}

// attributes returns the attributes of a span as text.
func attributes(s collector.Span) map[string]string {
	out := map[string]string{}
	for _, kv := range s.Attributes {
		out[kv.Key] = kv.Value.GetStringValue()
		if out[kv.Key] == "" {
			out[kv.Key] = fmt.Sprint(kv.Value.GetIntValue())
		}
	}
	return out
}

func lasted(s collector.Span) time.Duration {
	return time.Duration(s.EndTimeUnixNano - s.StartTimeUnixNano).Round(100 * time.Microsecond)
}

// TestTraceSamplingFollowsTheCaller: without a sampler, larder records what a caller records,
// starts a trace if there is none, and records nothing if the caller decided against it.
func TestTraceSamplingFollowsTheCaller(t *testing.T) {
	ctx := context.Background()
	c, l := startCollector(t), oneLayout(t)
	larder := startTraced(t, l, c)
	client, err := gateway.Dial(larder.Addr)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(traceparent string) {
		t.Helper()
		ctx := ctx
		if traceparent != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", traceparent)
		}
		if _, err := client.Store.LabelNames(
			ctx, &storepb.LabelNamesRequest{Start: -1 << 60, End: 1 << 60}); err != nil {
			t.Fatal(err)
		}
	}
	const sampled, not = "11111111111111111111111111111111", "22222222222222222222222222222222"
	ask("00-" + sampled + "-3333333333333333-01")
	ask("00-" + not + "-4444444444444444-00")
	ask("")
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	stop(t, larder)
	var servers []collector.Span
	for _, s := range c.Spans() {
		if s.Trace() == not {
			t.Errorf("%s is recorded although its caller is not", s.Name)
		}
		if s.IsServer() {
			servers = append(servers, s)
		}
	}
	if len(servers) != 2 {
		t.Fatalf("%d requests were recorded, want 2", len(servers))
	}
	for _, s := range servers {
		switch {
		case s.Trace() == sampled && s.Parent() == "3333333333333333":
		case s.Trace() != sampled && s.Parent() == "":
		default:
			t.Errorf("%s has trace %s and parent %s", s.Name, s.Trace(), s.Parent())
		}
	}
	t.Log("proved: larder records a trace exactly if its caller does")
}
