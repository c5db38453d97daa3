package pagecache

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"larder/internal/bucket/cost"
	"larder/internal/telemetry"
)

// startSpan starts a child of the span of ctx, and reports whether it did: that span must record,
// and the request must have spans left.
func (r *Reader) startSpan(
	ctx context.Context, name, object string, off, length int64, kind trace.SpanKind,
) (context.Context, trace.Span, bool) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, nil, false
	}
	return telemetry.StartSpan(ctx, "larder/internal/pagecache", name, trace.WithSpanKind(kind),
		trace.WithAttributes(
			attribute.String("object", object), attribute.Int64("offset", off),
			attribute.Int64("length", length), attribute.String("kind", r.opts.Kind)))
}

// endSpan ends a span, as failed if there is an error.
func endSpan(span trace.Span, err error, opts ...trace.SpanEndOption) {
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, "")
	}
	span.End(opts...)
}

// startRead starts the span of a flight. Waiting for bytes and for a slot is part of it; the event
// slot_acquired ends the wait. The span is nil if the flight is not traced.
func (r *Reader) startRead(f *flight) (context.Context, trace.Span) {
	ctx, span, ok := r.startSpan(
		f.ctx, "bucket_getrange", f.obj.Name, f.off, f.end-f.off, trace.SpanKindClient)
	if ok {
		r.mu.Lock()
		f.span = span.SpanContext()
		r.mu.Unlock()
	}
	return ctx, span
}

// startWaits starts a span for each wait for a flight of another request. It returns nil if there
// is none.
func (r *Reader) startWaits(ctx context.Context, c *claims) []trace.Span {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return nil
	}
	var spans []trace.Span
	for i, w := range c.waits {
		if slices.Contains(c.own, w.f) {
			continue
		}
		_, span, ok := r.startSpan(ctx, "bucket_getrange_shared", c.obj.Name, w.f.off,
			w.f.end-w.f.off, trace.SpanKindInternal)
		if !ok {
			break
		}
		if spans == nil {
			spans = make([]trace.Span, len(c.waits))
		}
		spans[i] = span
	}
	return spans
}

// endWaits ends the spans of startWaits when their waiters were released, and links them to the
// spans of the flights.
func (r *Reader) endWaits(spans []trace.Span, waits []*waiter) {
	if spans == nil {
		return
	}
	for i, w := range waits {
		if spans[i] == nil {
			continue
		}
		var at time.Time // zero: now
		var err error
		select {
		case <-w.done:
			at, err = w.at, w.err
		default: // the request has left
		}
		r.mu.Lock()
		by := w.f.span
		r.mu.Unlock()
		if by.IsValid() {
			spans[i].AddLink(trace.Link{SpanContext: by})
		}
		endSpan(spans[i], err, trace.WithTimestamp(at))
	}
}

// told logs the plan of a Fetch at level debug, and adds it to the span of its request, with the
// costs of its alternatives: reading no gaps, and reading all from the first byte to the last.
func (r *Reader) told(ctx context.Context, c *claims) {
	span := trace.SpanFromContext(ctx)
	logs := r.opts.Logger.Enabled(ctx, slog.LevelDebug)
	if len(c.own) == 0 || !logs && !span.IsRecording() {
		return
	}
	m, apart := r.opts.Costs.Model(), stretches(r.geometry(c.obj), c.need)
	var bytes int64
	reads := make([]cost.Extent, len(c.own))
	for i, f := range c.own {
		reads[i] = cost.Extent{Off: f.off, End: f.end}
		bytes += f.end - f.off
	}
	whole := []cost.Extent{{Off: apart[0].Off, End: apart[len(apart)-1].End}}
	planned, alone, joined := m.Cost(reads), m.Cost(apart), m.Cost(whole)
	if logs {
		r.opts.Logger.Log(ctx, slog.LevelDebug, "bucket reads planned", "kind", r.opts.Kind,
			"object", c.obj.Name, "requests", len(reads), "bytes", bytes, "cost", planned,
			"stretches", len(apart), "cost_without_gaps", alone,
			"cost_of_one_read", joined, "bytes_of_one_read", whole[0].Len())
	}
	if span.IsRecording() {
		span.AddEvent("bucket_reads_planned", trace.WithAttributes(
			attribute.String("object", c.obj.Name),
			attribute.Int("requests", len(reads)), attribute.Int64("bytes", bytes),
			attribute.Int64("cost_us", planned.Microseconds()),
			attribute.Int("stretches", len(apart)),
			attribute.Int64("stretches_cost_us", alone.Microseconds()),
			attribute.Int64("one_read_cost_us", joined.Microseconds()),
			attribute.Int64("one_read_bytes", whole[0].Len()),
		))
	}
}
