// Package collector receives traces over gRPC on a loopback port, as an OpenTelemetry collector
// does, and stores them.
package collector

import (
	"context"
	"encoding/hex"
	"net"
	"sync"

	otlp "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Span is a received span with the name of the service that sent it.
type Span struct {
	Service string
	*trace.Span
}

// ID, Trace and Parent are in hexadecimal, as in headers.
func (s Span) ID() string     { return hex.EncodeToString(s.SpanId) }
func (s Span) Trace() string  { return hex.EncodeToString(s.TraceId) }
func (s Span) Parent() string { return hex.EncodeToString(s.ParentSpanId) }

// IsServer reports whether the span is the server side of a request.
func (s Span) IsServer() bool { return s.Kind == trace.Span_SPAN_KIND_SERVER }

// Collector stores every span that it receives.
type Collector struct {
	otlp.UnimplementedTraceServiceServer
	Addr   string
	server *grpc.Server
	served chan error

	mu    sync.Mutex // guards spans
	spans []Span
}

// Start listens on a free loopback port.
func Start() (*Collector, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &Collector{Addr: l.Addr().String(), server: grpc.NewServer(), served: make(chan error, 1)}
	otlp.RegisterTraceServiceServer(c.server, c)
	go func() { c.served <- c.server.Serve(l) }()
	return c, nil
}

// Export implements the service.
func (c *Collector) Export(
	_ context.Context, r *otlp.ExportTraceServiceRequest,
) (*otlp.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range r.ResourceSpans {
		service := ""
		for _, a := range rs.Resource.GetAttributes() {
			if a.Key == "service.name" {
				service = a.Value.GetStringValue()
			}
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.spans = append(c.spans, Span{Service: service, Span: s})
			}
		}
	}
	return &otlp.ExportTraceServiceResponse{}, nil
}

// Spans returns the spans received so far. Senders buffer spans; after a sender has stopped, all
// its spans are here.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Span(nil), c.spans...)
}

// Close stops it.
func (c *Collector) Close() error {
	c.server.Stop()
	return <-c.served
}
