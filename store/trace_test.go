package store_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thanos-io/objstore"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"larder/benchmarks/dataset"
	"larder/internal/bucket/slots"
	"larder/internal/pagecache"
	"larder/internal/telemetry"
	"larder/store"
)

// farBucket sends the first byte of a read after 20 ms.
type farBucket struct{ objstore.Bucket }

func (b farBucket) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	time.Sleep(20 * time.Millisecond) // of the synctest clock
	return b.Bucket.GetRange(ctx, name, off, length)
}

// tracedGateway returns a gateway that records the spans of all requests in rec.
func tracedGateway(
	t *testing.T, dir string, spans int,
) (g *gateway, rec *tracetest.SpanRecorder) {
	t.Helper()
	rec = tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(rec))
	return startGateway(t, dir, gatewayOptions{
		chunkBytes: 64 << 20, indexBytes: 64 << 20,
		wrap: func(b objstore.Bucket) objstore.Bucket { return farBucket{b} },
		server: func(o *store.Options) {
			o.Tracer, o.SpansPerRequest = tp.Tracer("test"), spans
		},
		grpc: []grpc.ServerOption{
			grpc.StreamInterceptor((&telemetry.Tracing{Provider: tp}).GRPC().Stream),
		},
	}), rec
}

// requestTrace has the spans of one request.
type requestTrace struct {
	root     sdktrace.ReadOnlySpan
	children map[string][]sdktrace.ReadOnlySpan // by the id of the parent
	named    map[string][]sdktrace.ReadOnlySpan
}

// lastTrace returns the trace of the last Series request.
func lastTrace(t *testing.T, rec *tracetest.SpanRecorder) *requestTrace {
	t.Helper()
	tr := &requestTrace{
		children: map[string][]sdktrace.ReadOnlySpan{},
		named:    map[string][]sdktrace.ReadOnlySpan{},
	}
	ended := rec.Ended()
	for _, s := range ended {
		if s.Name() == "thanos.Store/Series" {
			tr.root = s
		}
	}
	if tr.root == nil {
		t.Fatal("no span of a Series request")
	}
	for _, s := range ended {
		if s.SpanContext().TraceID() == tr.root.SpanContext().TraceID() {
			parent := s.Parent().SpanID().String()
			tr.children[parent] = append(tr.children[parent], s)
			tr.named[s.Name()] = append(tr.named[s.Name()], s)
		}
	}
	return tr
}

func attr(s sdktrace.ReadOnlySpan, key string) string {
	for _, kv := range s.Attributes() {
		if string(kv.Key) == key {
			return kv.Value.String()
		}
	}
	return ""
}

// union returns the length of the union of the intervals of spans.
func union(spans []sdktrace.ReadOnlySpan) (total time.Duration) {
	slices.SortFunc(spans, func(a, b sdktrace.ReadOnlySpan) int {
		return a.StartTime().Compare(b.StartTime())
	})
	var until time.Time
	for _, s := range spans {
		from := s.StartTime()
		if from.Before(until) {
			from = until
		}
		if s.EndTime().After(from) {
			total += s.EndTime().Sub(from)
			until = s.EndTime()
		}
	}
	return total
}

// TestTraceShowsWhereTheTimeWent makes a cold and a warm request in virtual time. Spans of the
// stages cover the time that the stages took. Every read of the bucket has a span below the span of
// its stage.
func TestTraceShowsWhereTheTimeWent(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		spec := dataset.WholeMetric(fmt.Sprintf("traced%d", i), uint64(1+i), 4000, 30_000)
		if _, err := spec.Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) { traceShowsWhereTheTimeWent(t, dir) })
}

func traceShowsWhereTheTimeWent(t *testing.T, dir string) {
	g, rec := tracedGateway(t, dir, -1)
	for _, name := range []string{"cold", "warm"} {
		g.bucket.take()
		if _, err := g.query(context.Background(), wholeMetric(64)); err != nil {
			t.Fatal(err)
		}
		counts, _ := g.bucket.take()
		tr := lastTrace(t, rec)

		covered := map[string][]sdktrace.ReadOnlySpan{}
		for _, spans := range tr.named {
			for _, s := range spans {
				if stage := attr(s, "larder.stage"); stage != "" &&
					s.Name() != "bucket_store_series" {
					covered[stage] = append(covered[stage], s)
				}
			}
		}
		for _, name := range []string{
			"open index header", "build index header", "index_header_shared",
		} {
			covered["header"] = append(covered["header"], tr.named[name]...)
		}
		for _, stage := range []string{"gate", "header", "postings", "series", "chunks"} {
			var seconds float64
			if _, err := fmt.Sscan(
				attr(tr.root, "larder.stage_"+stage+"_seconds"), &seconds); err != nil {
				t.Fatalf("%s: no time of stage %s: %v", name, stage, tr.root.Attributes())
			}
			got := union(covered[stage]).Seconds()
			t.Logf("%s: stage %s took %.4f s, %d spans cover %.4f s",
				name, stage, seconds, len(covered[stage]), got)
			if name == "cold" && stage != "gate" && stage != "header" && seconds < 0.02 {
				t.Errorf("stage %s took %.4f s, less than one read", stage, seconds)
			}
			if seconds >= 0.001 && got < 0.95*seconds {
				t.Errorf("%s: spans of stage %s cover %.4f of %.4f s", name, stage, got, seconds)
			}
		}
		// Within a stage, the spans of blocks cover that of the stage.
		for _, stage := range []string{
			"bucket_store_preload_all", "bucket_store_series", "bucket_store_first_series",
			"bucket_store_fetch_window",
		} {
			for _, s := range tr.named[stage] {
				d := s.EndTime().Sub(s.StartTime())
				below := union(tr.children[s.SpanContext().SpanID().String()])
				if d >= time.Millisecond && below < d*95/100 {
					t.Errorf("%s: children of %s cover %v of %v", name, stage, below, d)
				}
			}
		}

		reads := tr.named["bucket_getrange"]
		// Series sets read for the request that needs a segment.
		if want := counts["index"] + counts["chunks"]; name == "cold" && want == 0 ||
			len(reads) > want {
			t.Errorf("%s: %d spans of reads, %d reads", name, len(reads), want)
		}
		stages := map[string]bool{}
		for _, s := range rec.Ended() {
			if attr(s, "larder.stage") != "" {
				stages[s.SpanContext().SpanID().String()] = true
			}
		}
		for _, s := range reads {
			if !stages[s.Parent().SpanID().String()] {
				t.Errorf("%s: a read is not below a stage: %v", name, s.Attributes())
			}
		}
		for key, want := range map[string]string{
			"larder.matchers": `{__name__="http_requests_total"}`, "larder.series_sent": "12000",
		} {
			if got := attr(tr.root, key); got != want {
				t.Errorf("%s: %s: got %s, want %s", name, key, got, want)
			}
		}
	}
}

// TestSharedWorkIsLinked makes two requests for the same blocks, the second one while the first one
// waits for the bucket. The trace of the second one has a span for each wait, with a link to the
// span of the first one for which the work is done.
func TestSharedWorkIsLinked(t *testing.T) {
	dir := t.TempDir()
	spec := dataset.WholeMetric("shared", 1, 4000, 30_000)
	if _, err := spec.Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		g, rec := tracedGateway(t, dir, -1)
		var running sync.WaitGroup
		for range 2 {
			running.Go(func() {
				if _, err := g.query(context.Background(), wholeMetric(64)); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(5 * time.Millisecond)
		}
		running.Wait()

		of := map[string]string{} // the traces of spans
		for _, s := range rec.Ended() {
			of[s.SpanContext().SpanID().String()] = s.SpanContext().TraceID().String()
		}
		stages := map[string]bool{}
		for _, s := range rec.Ended() {
			if attr(s, "larder.stage") != "" {
				stages[s.SpanContext().SpanID().String()] = true
			}
		}
		linked := map[string]int{}
		for _, s := range rec.Ended() {
			if !strings.HasSuffix(s.Name(), "_shared") {
				continue
			}
			if !stages[s.Parent().SpanID().String()] {
				t.Errorf("%s is not below a stage", s.Name())
			}
			for _, l := range s.Links() {
				other := of[l.SpanContext.SpanID().String()]
				if other == "" || other == s.SpanContext().TraceID().String() {
					t.Errorf("%s links to trace %q", s.Name(), other)
				}
				linked[s.Name()]++
			}
		}
		t.Logf("%v", linked)
		for _, name := range []string{
			"index_header_shared", "postings_shared", "series_set_shared", "bucket_getrange_shared",
		} {
			if linked[name] == 0 {
				t.Errorf("no %s with a link: %v", name, linked)
			}
		}
	})
}

// TestTracedRequestsTakeTurns: while a traced request of one tenant waits for many reads, those of
// another tenant are not behind all of them. The bucket answers one read at a time.
func TestTracedRequestsTakeTurns(t *testing.T) {
	const blocks, span = 9, 2 * 3600_000
	dir := t.TempDir()
	for i := range blocks {
		spec := dataset.WholeMetric("turns", uint64(1+i), 200, 30_000)
		spec.Blocks[0].MinTime += int64(i) * span
		spec.Blocks[0].MaxTime += int64(i) * span
		if _, err := spec.Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		tp := sdktrace.NewTracerProvider()
		g := startGateway(t, dir, gatewayOptions{
			chunkBytes: 64 << 20, indexBytes: 64 << 20,
			wrap:   func(b objstore.Bucket) objstore.Bucket { return farBucket{b} },
			server: func(o *store.Options) { o.Tracer = tp.Tracer("test") },
			pages:  pagecache.Options{Limiter: slots.New(slots.Options{Max: 1, Start: 1, Min: 1})},
			grpc: []grpc.ServerOption{
				grpc.StreamInterceptor((&telemetry.Tracing{Provider: tp}).GRPC().Stream),
			},
		})
		ask := func(tenant string, from, to int64) {
			req := wholeMetric(64)
			req.MinTime, req.MaxTime = dataset.Epoch+from*span, dataset.Epoch+to*span-1
			ctx := metadata.AppendToOutgoingContext(context.Background(), "thanos-tenant", tenant)
			if _, err := g.query(ctx, req); err != nil {
				t.Error(err)
			}
		}
		var running sync.WaitGroup
		running.Go(func() { ask("many", 0, blocks-1) })
		time.Sleep(45 * time.Millisecond) // the headers are built
		start := time.Now()
		ask("few", blocks-1, blocks)
		took := time.Since(start)
		running.Wait()
		t.Logf("%v, beside a request that took %v", took, time.Since(start))
		if most := 250 * time.Millisecond; took > most {
			t.Errorf("a request for one block took %v, want at most %v", took, most)
		}
	})
}

// TestSpansAreBounded checks that a request has no more spans than it may, and counts the others.
func TestSpansAreBounded(t *testing.T) {
	dir := t.TempDir()
	spec := dataset.WholeMetric("bounded", 1, 2000, 30_000)
	if _, err := spec.Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	g, rec := tracedGateway(t, dir, 3)
	if _, err := g.query(context.Background(), wholeMetric(64)); err != nil {
		t.Fatal(err)
	}
	tr := lastTrace(t, rec)
	n := -1 // the request's own
	for _, spans := range tr.named {
		n += len(spans)
	}
	// Building the header is not bounded: it happens once, for all requests.
	n -= len(tr.named["open index header"]) + len(tr.named["build index header"])
	if n != 3 {
		t.Errorf("got %d spans, want 3: %v", n, tr.named)
	}
	if attr(tr.root, "larder.spans.dropped") == "" {
		t.Errorf("dropped spans are not counted: %v", tr.root.Attributes())
	}
}
