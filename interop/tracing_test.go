package interop

import (
	"context"
	"fmt"
	"testing"

	"github.com/thanos-io/thanos/pkg/store/storepb"
	"google.golang.org/grpc/metadata"

	"larder/interop/internal/collector"
	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/neighbour"
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

// TestTraceOfAQuerierContinues sends one PromQL query through a real Querier. Its trace must
// continue in larder, below the span in which the Querier called it, down to the reads of the
// bucket.
func TestTraceOfAQuerierContinues(t *testing.T) {
	ctx := context.Background()
	c, l := startCollector(t), oneLayout(t)
	larder := startTraced(t, l, c)
	q, err := neighbour.StartQuerier(
		ctx, programs.Thanos(t), []string{larder.Addr}, tracingTo(c, "querier", "alwayssample"),
	)
	if err != nil {
		t.Fatal(err)
	}
	b := l.Served()[0]
	s := b.Series[len(b.Series)/2]
	res, err := q.Instant(
		ctx, fmt.Sprintf("count({__name__=%q})", s.Labels.Get("__name__")), s.Chunks[0].Max,
		neighbour.Params{MaxSourceResolution: "1h"},
	)
	if err != nil {
		t.Fatal(err)
	}
	if res.Status != "success" {
		t.Fatalf("the query failed: %+v", res)
	}
	// Both send their remaining spans when they stop.
	stop(t, q)
	stop(t, larder)

	spans := c.Spans()
	byID := map[string]collector.Span{}
	for _, s := range spans {
		byID[s.ID()] = s
	}
	found := 0
	for _, s := range spans {
		if s.Service != "larder" || !s.IsServer() || s.Name != "thanos.Store/Series" {
			continue
		}
		found++
		parent, ok := byID[s.Parent()]
		if !ok || parent.Service != "querier" || parent.Trace() != s.Trace() {
			t.Errorf(
				"the parent of larder's span %s is %q of %q, in trace %s of %s", s.ID(),
				parent.Name, parent.Service, parent.Trace(), s.Trace(),
			)
			continue
		}
		t.Logf("proved: %s is a child of the span %s of a real Querier", s.Name, parent.Name)
		children := map[string]int{}
		for _, d := range spans {
			if d.Service == "larder" && d.Trace() == s.Trace() && d.ID() != s.ID() {
				children[d.Name]++
			}
		}
		if children["store_query_gate_ismyturn"] == 0 ||
			children["bucket_store_preload_all"] == 0 ||
			children["bucket_getrange"] == 0 {
			t.Errorf("spans below larder's: %v", children)
		}
		root := s
		for root.Parent() != "" {
			if root, ok = byID[root.Parent()]; !ok {
				t.Error("the trace does not lead to a root")
				break
			}
		}
	}
	if found == 0 {
		t.Errorf("none of %d spans is larder's span of a Series request", len(spans))
	}
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
