package telemetry

import (
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// BenchmarkUnsampledCall is what tracing adds to a call that is not sampled.
func BenchmarkUnsampledCall(b *testing.B) {
	tr := &Tracing{Provider: sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(0.01))))}
	g := tr.GRPC()
	for name, traceparent := range map[string]string{
		"caller=none": "", "caller=unsampled": "00-" + parent + "-00",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				callStream(g, traceparent, nil)
			}
		})
	}
}
