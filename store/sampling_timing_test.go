package store_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"

	"larder/benchmarks/dataset"
	"larder/store"
	"larder/store/storepb"
)

// droppedSpans is an exporter without a receiver.
type droppedSpans struct{}

func (droppedSpans) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (droppedSpans) Shutdown(context.Context) error                             { return nil }

// BenchmarkSampling answers warm Series requests without tracing, and with one request of 100
// sampled. cpu-ns/op is the CPU time of client and server, which other processes do not change.
// Compare the two with benchstat -col /tracing, from runs with -count=20.
func BenchmarkSampling(b *testing.B) {
	dir := b.TempDir()
	spec := dataset.WholeMetric("sampled", 1, 400, 30_000)
	metas, err := spec.Write(b.Context(), dir, dataset.WriteOptions{})
	if err != nil {
		b.Fatal(err)
	}
	req := &storepb.SeriesRequest{
		MinTime: metas[0].MinTime, MaxTime: metas[0].MaxTime,
		Matchers: []*storepb.LabelMatcher{{
			Type: storepb.LabelMatcher_NEQ, Name: "__name__",
		}},
	}
	for _, tracing := range []string{"off", "hundredth"} {
		b.Run("tracing="+tracing, func(b *testing.B) {
			opts := gatewayOptions{chunkBytes: 64 << 20, indexBytes: 64 << 20}
			if tracing != "off" {
				tp := sdktrace.NewTracerProvider(
					sdktrace.WithSampler(sdktrace.TraceIDRatioBased(0.01)),
					sdktrace.WithBatcher(droppedSpans{}))
				defer func() { _ = tp.Shutdown(context.Background()) }()
				opts.server = func(o *store.Options) { o.Tracer = tp.Tracer("test") }
				opts.grpc = []grpc.ServerOption{grpc.StatsHandler(
					otelgrpc.NewServerHandler(otelgrpc.WithTracerProvider(tp)))}
			}
			g := startGateway(b, dir, opts)
			for range 5 {
				if _, err := g.query(b.Context(), req); err != nil {
					b.Fatal(err)
				}
			}
			before := cpuTime(b)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := g.query(b.Context(), req); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpuTime returns the CPU time of the process.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
