package pagecache

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"larder/internal/telemetry"
)

// TestTraceOfAJoinedRead: a request that waits for the read of another request has a span for the
// wait, below its own span and linked to that of the read.
func TestTraceOfAJoinedRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := tracetest.NewSpanRecorder()
		tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(rec))
		b := newTestBucket(map[string]int{"o": 10_000})
		b.hook = func(context.Context, string, int64, int64) (io.ReadCloser, error, bool) {
			time.Sleep(time.Second) // of the synctest clock
			return nil, nil, false
		}
		r := New(b, newMapCache(), Options{})
		defer r.Close()
		fetch := func(ctx context.Context) {
			_, err := r.Fetch(ctx, testObject("o", 10_000), []Span{{0, 1}}, nil)
			if err != nil {
				t.Error(err)
			}
		}
		reading, first := tp.Tracer("test").Start(t.Context(), "reads")
		go fetch(reading)
		synctest.Wait()
		time.Sleep(400 * time.Millisecond)
		joining, second := tp.Tracer("test").Start(t.Context(), "joins")
		go fetch(joining)
		bounded, _ := telemetry.WithSpanBudget(joining, 0)
		go fetch(bounded) // adds no span
		time.Sleep(time.Minute)
		synctest.Wait()

		var read, wait sdktrace.ReadOnlySpan
		for _, s := range rec.Ended() {
			switch s.Name() {
			case "bucket_getrange":
				read = s
			case "bucket_getrange_shared":
				wait = s
			}
		}
		if len(rec.Ended()) != 2 || read == nil || wait == nil {
			t.Fatalf("got spans %v", rec.Ended())
		}
		if read.Parent().SpanID() != first.SpanContext().SpanID() ||
			wait.Parent().SpanID() != second.SpanContext().SpanID() {
			t.Error("the spans have other parents than their requests")
		}
		if d := wait.EndTime().Sub(wait.StartTime()); d != 600*time.Millisecond {
			t.Errorf("the wait took %v, want 600ms", d)
		}
		if links := wait.Links(); len(links) != 1 ||
			links[0].SpanContext.SpanID() != read.SpanContext().SpanID() {
			t.Errorf("links of the wait: %v", wait.Links())
		}
		if events := read.Events(); len(events) != 1 || events[0].Name != "slot_acquired" {
			t.Errorf("events of the read: %v", read.Events())
		}
	})
}
