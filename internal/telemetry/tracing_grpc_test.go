package telemetry

import (
	"context"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	seriesMethod = "/thanos.Store/Series"
	parent       = "11111111111111111111111111111111-2222222222222222"
)

// callStream makes a call with a traceparent, "" for none. It returns the context of the handler.
func callStream(g *GRPC, traceparent string, err error) (seen context.Context) {
	ctx := context.Background()
	if traceparent != "" {
		ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("traceparent", traceparent))
	}
	info := &grpc.StreamServerInfo{FullMethod: seriesMethod}
	_ = g.Stream(nil, &tracedStream{ctx: ctx}, info, func(_ any, ss grpc.ServerStream) error {
		seen = ss.Context()
		return err
	})
	return seen
}

// TestSpansOfCalls: the span of a call continues the trace of its caller and has the code of the
// call. The fault of a bucket, Aborted, is an error, and a bad request is none.
func TestSpansOfCalls(t *testing.T) {
	f := func(traceparent string, code codes.Code, want string) {
		t.Helper()
		rec := tracetest.NewSpanRecorder()
		tr := &Tracing{Provider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(rec))}
		callStream(tr.GRPC(), traceparent, status.Error(code, "why"))
		got := ""
		for _, s := range rec.Ended() {
			got += s.Name() + " " + s.Status().Code.String() + " " + s.Parent().SpanID().String()
			for _, a := range s.Attributes() {
				got += " " + a.Value.String()
			}
		}
		if got != want {
			t.Errorf("%s %v: got %s, want %s", traceparent, code, got, want)
		}
	}
	const name = "thanos.Store/Series"
	f("00-"+parent+"-01", codes.OK, name+" Unset 2222222222222222 grpc "+name+" OK")
	f("", codes.Aborted, name+" Error 0000000000000000 grpc "+name+" Aborted")
	f("", codes.InvalidArgument, name+" Unset 0000000000000000 grpc "+name+" InvalidArgument")
	f("00-"+parent+"-00", codes.OK, "")
}
