package telemetry

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// stuckExporter sends nothing until goOn is closed.
type stuckExporter struct {
	goOn chan struct{}
	sent atomic.Int64
	err  error
}

func (e *stuckExporter) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	<-e.goOn
	e.sent.Add(int64(len(spans)))
	return e.err
}

func (e *stuckExporter) Shutdown(context.Context) error { return nil }

// TestSpansThatDoNotFitAreCounted ends more spans than the queue holds while the collector takes
// none. Each span is sent or counted.
func TestSpansThatDoNotFitAreCounted(t *testing.T) {
	f := func(ended, size int, err error) {
		t.Helper()
		e := &stuckExporter{goOn: make(chan struct{}), err: err}
		q := newSpanQueue(e, 0)
		if q.size != int64(size) {
			t.Errorf("the queue has room for %d spans, want %d", q.size, size)
		}
		provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(q))
		for range ended {
			_, span := provider.Tracer("test").Start(t.Context(), "one")
			span.End()
		}
		if dropped := testutil.ToFloat64(q.full); dropped != float64(max(ended-size, 0)) {
			t.Errorf("of %d spans %v are dropped, the queue holds %d", ended, dropped, size)
		}
		close(e.goOn)
		if err := provider.Shutdown(t.Context()); err != nil && e.err == nil {
			t.Error(err)
		}
		failed := 0
		if e.err != nil {
			failed = min(ended, size)
		}
		if sent := e.sent.Load(); sent != int64(min(ended, size)) ||
			testutil.ToFloat64(q.failed) != float64(failed) || q.queued.Load() != 0 {
			t.Errorf("of %d spans, %d are sent, %v counted as failed, %d left, want %d failed",
				ended, sent, testutil.ToFloat64(q.failed), q.queued.Load(), failed)
		}
	}
	f(10, 2048, nil)
	f(2048, 2048, nil)
	f(5000, 2048, nil)
	f(3000, 2048, errors.New("the collector is full"))
	t.Setenv(queueVariable, "600")
	f(700, 600, nil)
}

func TestQueueFollowsTheBoundOfSpans(t *testing.T) {
	f := func(spansPerRequest, want int) {
		t.Helper()
		if got := queueSize(spansPerRequest); got != want {
			t.Errorf("%d spans per request: a queue of %d, want %d", spansPerRequest, got, want)
		}
	}
	f(0, 2048)
	f(1, 2048)
	f(512, 2048)
	f(5000, 20_000)
	f(1<<40, 64<<10)
	f(-1, 32<<10)
}
