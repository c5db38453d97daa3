package telemetry

import (
	"context"
	"os"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

const (
	// minQueue is OpenTelemetry's own size of the queue.
	minQueue = sdktrace.DefaultMaxQueueSize
	// requestsInQueue is for how many requests with all of their spans the queue has room: requests
	// end together, and the collector takes a moment for each batch.
	requestsInQueue = 4
	// unboundedQueue is the size of the queue if the spans of a request have no bound, maxQueue is
	// that of any other queue. A span takes about 1 KiB while it waits.
	unboundedQueue = 32 << 10
	maxQueue       = 64 << 10

	queueVariable = "OTEL_BSP_MAX_QUEUE_SIZE"
)

// queueSize returns how many spans wait for the collector at most. The bound of spans by default,
// 0, needs no more than the minimum.
func queueSize(spansPerRequest int) int {
	if spansPerRequest < 0 {
		return unboundedQueue
	}
	return min(max(requestsInQueue*min(spansPerRequest, maxQueue), minQueue), maxQueue)
}

// spanQueue sends spans in batches, and counts those that it drops, which the processor of the SDK
// does not tell. It is safe for concurrent use.
//
// INVARIANT: queued counts the spans of the processor, also those that are being sent. It is never
// more than size, which is the capacity of the processor. The processor therefore drops none.
type spanQueue struct {
	sdktrace.SpanProcessor
	size         int64
	queued       atomic.Int64
	full, failed prometheus.Counter
}

// newSpanQueue returns a queue for spans of requests with a bound of spansPerRequest each.
func newSpanQueue(exporter sdktrace.SpanExporter, spansPerRequest int) *spanQueue {
	dropped := func(reason string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_trace_spans_dropped_total",
			Help: "Spans of sampled requests that did not get to the collector: the queue was " +
				"full, or the collector failed.",
			ConstLabels: prometheus.Labels{"reason": reason},
		})
	}
	q := &spanQueue{full: dropped("queue_full"), failed: dropped("export_failed")}
	size := func(o *sdktrace.BatchSpanProcessorOptions) {
		if os.Getenv(queueVariable) == "" {
			o.MaxQueueSize = queueSize(spansPerRequest)
		}
		q.size = int64(o.MaxQueueSize)
	}
	q.SpanProcessor = sdktrace.NewBatchSpanProcessor(countingExporter{exporter, q}, size)
	return q
}

// OnEnd queues a span, or drops and counts it.
func (q *spanQueue) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return // the processor would not queue it
	}
	if q.queued.Add(1) > q.size {
		q.queued.Add(-1)
		q.full.Inc()
		return
	}
	q.SpanProcessor.OnEnd(s)
}

// countingExporter takes the spans that it has sent out of the queue's count.
type countingExporter struct {
	sdktrace.SpanExporter
	queue *spanQueue
}

func (e countingExporter) ExportSpans(
	ctx context.Context, spans []sdktrace.ReadOnlySpan,
) error {
	defer e.queue.queued.Add(-int64(len(spans)))
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err != nil {
		e.queue.failed.Add(float64(len(spans)))
	}
	return err
}
