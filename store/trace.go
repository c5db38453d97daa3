package store

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"larder/internal/telemetry"
)

// spansPerRequest bounds the spans of one request besides its own: those of stages, slow blocks,
// reads and look-ups.
const spansPerRequest = 512

// slowWait is the time from which work beside the stages has a span: sending a frame, encoding a
// window, waiting for one that is free.
const slowWait = time.Millisecond

// slowBlocks is how many blocks of a stage have a span of their own: the slowest ones.
const slowBlocks = 10

// startSpan starts a span of a stage, below that of ctx. times records the blocks of the stage, of
// which spans with the name blocks are made; "" for none. The end function ends the span, and adds
// its duration to the stage. Both are without the time that it takes to make spans of blocks.
func (r *request) startSpan(
	ctx context.Context, id stageID, name, blocks string,
) (stageCtx context.Context, times *blockTimes, end func()) {
	start := time.Now()
	r.progress.now.Store(int32(id))
	ctx, span := r.span(ctx, id, name)
	if blocks != "" {
		times = r.blockTimes(ctx, id, blocks)
	}
	return ctx, times, func() {
		now := time.Now()
		r.addStage(id, now.Sub(start))
		times.end(ctx)
		span.End(trace.WithTimestamp(now))
	}
}

// span starts a span that belongs to a stage. If the request is not traced, or has no spans left,
// the span does nothing.
func (r *request) span(
	ctx context.Context, id stageID, name string, opts ...trace.SpanStartOption,
) (context.Context, trace.Span) {
	if !trace.SpanFromContext(ctx).IsRecording() || !telemetry.SpendSpan(ctx) {
		return ctx, trace.SpanFromContext(context.Background())
	}
	return r.server.tracer.Start(ctx, name, append(opts,
		trace.WithAttributes(attribute.String("larder.stage", stageNames[id])))...)
}

// late makes a span of work that has ended, if it took slowWait or the request has no bound of its
// spans. Without an id it belongs to no stage.
func (r *request) late(ctx context.Context, name string, start, end time.Time, id ...stageID) {
	if end.Sub(start) < slowWait && r.spans != nil || !trace.SpanFromContext(ctx).IsRecording() ||
		!telemetry.SpendSpan(ctx) {
		return
	}
	opts := []trace.SpanStartOption{trace.WithTimestamp(start)}
	for _, id := range id {
		opts = append(opts, trace.WithAttributes(
			attribute.String("larder.stage", stageNames[id])))
	}
	_, span := r.server.tracer.Start(ctx, name, opts...)
	span.End(trace.WithTimestamp(end))
}

// observe adds a value of the request to a histogram. If the request is sampled, the value is an
// exemplar with the id of its trace.
func (r *request) observe(h prometheus.Observer, v float64) {
	sc := trace.SpanContextFromContext(r.ctx)
	if !sc.IsSampled() {
		h.Observe(v)
		return
	}
	h.(prometheus.ExemplarObserver).ObserveWithExemplar(v, prometheus.Labels{
		"trace_id": sc.TraceID().String(),
	})
}

// blockTimes has when the blocks of a stage were worked on. Spans are made of it when the stage
// ends, because only then the slowest blocks are known. nil records nothing.
type blockTimes struct {
	request *request
	stage   stageID
	name    string // of the spans

	mu    sync.Mutex // guards times
	times []blockTime
}

type blockTime struct {
	block      ulid.ULID
	start, end time.Time
}

func (t *blockTime) duration() time.Duration { return t.end.Sub(t.start) }

// blockTimes returns a record of the blocks of a stage, nil if the span of ctx does not record.
func (r *request) blockTimes(ctx context.Context, id stageID, name string) *blockTimes {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return nil
	}
	return &blockTimes{request: r, stage: id, name: name}
}

// add records the time of a block.
func (b *blockTimes) add(t blockTime) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.times = append(b.times, t)
}

// end makes spans of the slowest blocks, or of all if spans have no bound, below the span of ctx.
// That span gets the number of the other blocks and their time, added up. The caller calls it once,
// after all calls of timedBlock.
func (b *blockTimes) end(ctx context.Context) {
	if b == nil {
		return
	}
	b.mu.Lock()
	times := b.times
	b.mu.Unlock()
	slices.SortFunc(times, func(x, y blockTime) int {
		return cmp.Compare(y.duration(), x.duration())
	})
	most := slowBlocks
	if b.request.spans == nil {
		most = len(times)
	}
	var others time.Duration
	for i, t := range times {
		if i >= most {
			others += t.duration()
			continue
		}
		_, span := b.request.span(ctx, b.stage, b.name, trace.WithTimestamp(t.start),
			trace.WithAttributes(attribute.String("block", t.block.String())))
		span.End(trace.WithTimestamp(t.end))
	}
	span := trace.SpanFromContext(ctx)
	span.SetAttributes(attribute.Int("larder.blocks", len(times)))
	if n := len(times) - most; n > 0 {
		span.SetAttributes(attribute.Int("larder.blocks.other", n),
			attribute.Float64("larder.blocks.other_seconds", others.Seconds()))
	}
}
