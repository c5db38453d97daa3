package telemetry

import (
	"context"
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"
)

type spanBudgetContext struct{}

// SpanBudget bounds how many spans the parts of one request may start. A request for thousands of
// blocks would otherwise have as many spans as reads, and collectors would drop its trace. The zero
// value permits none. It is safe for concurrent use.
type SpanBudget struct {
	left atomic.Int64
}

// WithSpanBudget returns a context whose parts may start n spans, and their budget.
func WithSpanBudget(ctx context.Context, n int64) (context.Context, *SpanBudget) {
	b := &SpanBudget{}
	b.left.Store(n)
	return context.WithValue(ctx, spanBudgetContext{}, b), b
}

// Dropped returns how many spans did not fit.
func (b *SpanBudget) Dropped() int64 { return max(0, -b.left.Load()) }

// SpendSpan reports whether one more span may be started. Without a budget in ctx it always may.
func SpendSpan(ctx context.Context) bool {
	b, ok := ctx.Value(spanBudgetContext{}).(*SpanBudget)
	return !ok || b.left.Add(-1) >= 0
}

// StartSpan starts a child of the span of ctx, with its provider, and reports whether it did: that
// span must record, and the request must have spans left. tracer is the package that calls it.
func StartSpan(
	ctx context.Context, tracer, name string, opts ...trace.SpanStartOption,
) (context.Context, trace.Span, bool) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() || !SpendSpan(ctx) {
		return ctx, nil, false
	}
	ctx, span := parent.TracerProvider().Tracer(tracer).Start(ctx, name, opts...)
	return ctx, span, true
}
