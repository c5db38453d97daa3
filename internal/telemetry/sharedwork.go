package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// TracedBy returns ctx with the span of by and its budget: what is done with the result is done for
// by, and ends with ctx. It is for work that several requests share in turns.
func TracedBy(ctx, by context.Context) context.Context {
	span := trace.SpanFromContext(by)
	if !span.IsRecording() && !trace.SpanFromContext(ctx).IsRecording() {
		return ctx
	}
	ctx = trace.ContextWithSpan(ctx, span)
	return context.WithValue(ctx, spanBudgetContext{}, by.Value(spanBudgetContext{}))
}

// AwaitShared starts a span below that of ctx for a wait for work that another request has begun,
// with a link to the span of starter, the context of that request. end ends the span. If the span
// of ctx does not record, or the request has no spans left, nothing is recorded.
func AwaitShared(
	ctx context.Context, name string, starter context.Context, attrs ...attribute.KeyValue,
) (end func()) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return func() {}
	}
	opts := []trace.SpanStartOption{trace.WithAttributes(attrs...)}
	if by := trace.SpanContextFromContext(starter); by.IsValid() {
		opts = append(opts, trace.WithLinks(trace.Link{SpanContext: by}))
	}
	_, span, ok := StartSpan(ctx, "larder/internal/telemetry", name, opts...)
	if !ok {
		return func() {}
	}
	return func() { span.End() }
}
