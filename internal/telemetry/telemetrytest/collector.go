package telemetrytest

import (
	"context"
	"encoding/hex"
	"net"
	"sync"
	"testing"

	otlp "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Span is a span that a Collector received, with the attributes of its resource.
type Span struct {
	*traces.Span
	Resource map[string]string
}

// ID, Trace and Parent are in hexadecimal, as in headers.
func (s Span) ID() string     { return hex.EncodeToString(s.SpanId) }
func (s Span) Trace() string  { return hex.EncodeToString(s.TraceId) }
func (s Span) Parent() string { return hex.EncodeToString(s.ParentSpanId) }

// Attribute returns the value of an attribute, nil if the span does not have it.
func (s Span) Attribute(key string) *common.AnyValue {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value
		}
	}
	return nil
}

// Collector receives traces over OTLP on a loopback port, and keeps them.
type Collector struct {
	otlp.UnimplementedTraceServiceServer
	Addr string

	mu    sync.Mutex // guards spans
	spans []Span
}

// StartCollector runs a Collector until the test ends.
func StartCollector(t testing.TB) *Collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Collector{Addr: l.Addr().String()}
	server := grpc.NewServer()
	otlp.RegisterTraceServiceServer(server, c)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("collector: %v", err)
		}
	})
	return c
}

// Export implements the service.
func (c *Collector) Export(
	_ context.Context, r *otlp.ExportTraceServiceRequest,
) (*otlp.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range r.ResourceSpans {
		resource := map[string]string{}
		for _, a := range rs.Resource.GetAttributes() {
			resource[a.Key] = a.Value.GetStringValue()
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.spans = append(c.spans, Span{Span: s, Resource: resource})
			}
		}
	}
	return &otlp.ExportTraceServiceResponse{}, nil
}

// Len returns how many spans were received so far.
func (c *Collector) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.spans)
}

// Trace returns the spans of a trace that were received so far. Once its sender has stopped, these
// are all.
func (c *Collector) Trace(id string) (spans []Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.Trace() == id {
			spans = append(spans, s)
		}
	}
	return spans
}
