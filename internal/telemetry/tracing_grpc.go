package telemetry

import (
	"context"
	"maps"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// GRPC starts the spans of gRPC requests. They continue the traces of callers. Health checks have
// none. A request that is not sampled passes through unchanged.
//
// OpenTelemetry's own instrumentation does as much, but as a stats handler. It makes attributes and
// measurements of each request and message, whether the request is sampled or not.
type GRPC struct{ tracer trace.Tracer }

// GRPC returns the interceptors of a server.
func (t *Tracing) GRPC() *GRPC {
	return &GRPC{t.Provider.Tracer("larder/internal/telemetry")}
}

// carrier reads the headers of a request.
type carrier metadata.MD

func (c carrier) Get(key string) string {
	if v := metadata.MD(c).Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

func (c carrier) Set(key, value string) { metadata.MD(c).Set(key, value) }

func (c carrier) Keys() []string { return slices.Collect(maps.Keys(c)) }

// start starts the span of a call of a method ("/service/method"), and returns a context with it.
// It returns nil if the call is not sampled.
func (g *GRPC) start(ctx context.Context, method string) (context.Context, trace.Span) {
	if strings.HasPrefix(method, "/"+healthpb.Health_ServiceDesc.ServiceName+"/") {
		return nil, nil
	}
	if v := metadata.ValueFromIncomingContext(ctx, "traceparent"); len(v) > 0 {
		headers, _ := metadata.FromIncomingContext(ctx)
		ctx = propagation.TraceContext{}.Extract(ctx, carrier(headers))
	}
	name := strings.TrimPrefix(method, "/")
	ctx, span := g.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
	if !span.IsRecording() {
		return nil, nil
	}
	span.SetAttributes(attribute.String("rpc.system.name", "grpc"),
		attribute.String("rpc.method", name))
	return ctx, span
}

// end ends the span of a call that returned err.
func end(span trace.Span, err error) {
	s := status.Convert(err)
	span.SetAttributes(attribute.String("rpc.response.status_code", s.Code().String()))
	switch s.Code() {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal,
		codes.Unavailable, codes.DataLoss,
		codes.Aborted: // a fault of the bucket or of a block
		span.SetStatus(otelcodes.Error, s.Message())
	}
	span.End()
}

// Unary is the interceptor of unary calls.
func (g *GRPC) Unary(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler,
) (resp any, err error) {
	traced, span := g.start(ctx, info.FullMethod)
	if span == nil {
		return next(ctx, req)
	}
	defer func() { end(span, err) }()
	return next(traced, req)
}

// Stream is the interceptor of streams.
func (g *GRPC) Stream(
	srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler,
) (err error) {
	traced, span := g.start(ss.Context(), info.FullMethod)
	if span == nil {
		return next(srv, ss)
	}
	defer func() { end(span, err) }()
	return next(srv, &tracedStream{ss, traced})
}

// tracedStream is a stream whose context has the span.
type tracedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *tracedStream) Context() context.Context { return s.ctx }
