package pagecache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"larder/internal/bucket/cost"
	"larder/internal/bucket/slots"
	"larder/internal/panics"
)

func testObject(name string, size int) Object {
	return Object{Name: name, Size: int64(size), ID: 1}
}

// TestConcurrentMissesReadOnce: 50 identical cold requests that all wait for a stalled bucket make
// the reads of one.
func TestConcurrentMissesReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 100_000
		b := newTestBucket(map[string]int{"o": size})
		hold := make(chan struct{})
		b.hook = func(context.Context, string, int64, int64) (io.ReadCloser, error, bool) {
			<-hold
			return nil, nil, false
		}
		r := New(b, newMapCache(), Options{PageSize: 1 << 10, Costs: apart()})
		defer r.Close()
		spans := []Span{{0, 10}, {5000, 9000}, {50_000, 50_001}, {99_999, 100_000}}
		var acct Account
		for range 50 {
			go func() {
				p, err := r.Fetch(t.Context(), testObject("o", size), spans, &acct)
				if err != nil {
					t.Error(err)
					return
				}
				checkSpans(t, p, b.objects["o"], spans)
			}()
		}
		synctest.Wait()
		close(hold)
		synctest.Wait()
		reads := b.taken()
		if len(reads) != 4 {
			t.Errorf("got %d reads, want 4: %v", len(reads), reads)
		}
		const pages = 1 + 5 + 1 + 1
		got := []int64{
			acct.Touched.Load(),
			acct.Hits.Load(),
			acct.Coalesced.Load(),
			acct.Fetched.Load(),
			acct.Requests.Load(),
			acct.FetchedBytes.Load(),
		}
		want := []int64{50 * pages, 0, 49 * pages, pages, 4, 7*1024 + 100_000%1024}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf(
				"touched, hits, coalesced, fetched, requests, fetched bytes (-want +got):\n%s",
				diff,
			)
		}
	})
}

func checkSpans(t *testing.T, p *Pages, data []byte, spans []Span) {
	t.Helper()
	c := p.Cursor()
	var scratch []byte
	for _, s := range spans {
		if s.Off == s.End {
			continue // needs no page
		}
		var got []byte
		var ok bool
		got, scratch, ok = c.Bytes(s.Off, int(s.End-s.Off), scratch)
		if !ok || !bytes.Equal(got, data[s.Off:s.End]) {
			t.Errorf("span [%d,%d): wrong bytes, ok %v", s.Off, s.End, ok)
		}
	}
}

func TestSpend(t *testing.T) {
	errLimit := errors.New("limit of 2000 bytes exceeded")
	b := newTestBucket(map[string]int{"o": 10_000})
	cache := newMapCache()
	r := New(b, cache, Options{PageSize: 1 << 10, Costs: apart()})
	defer r.Close()
	type call struct{ Touched, Fetched int64 }
	var calls []call
	var refuse error
	acct := &Account{Spend: func(touched, fetched int64) error {
		calls = append(calls, call{touched, fetched})
		if n := len(b.taken()); n > 0 {
			t.Errorf("%d reads before Spend", n)
		}
		return refuse
	}}
	obj := testObject("o", 10_000)
	refuse = errLimit
	if _, err := r.Fetch(t.Context(), obj, []Span{{0, 3000}}, acct); !errors.Is(err, errLimit) ||
		!strings.Contains(err.Error(), "object o") {
		t.Errorf("got %v", err)
	}
	if n := cache.len(); n > 0 || acct.Touched.Load() != 0 || acct.Requests.Load() != 0 {
		t.Errorf("%d pages cached, %d touched after a refusal", n, acct.Touched.Load())
	}
	if n := len(b.taken()); n > 0 {
		t.Errorf("%d reads after a refusal", n)
	}
	refuse = nil
	for range 2 { // cold, then warm; the last page is short
		if _, err := r.Fetch(t.Context(), obj, []Span{{0, 10}, {9500, 10_000}}, acct); err != nil {
			t.Error(err)
		}
		b.taken()
	}
	want := []call{{3072, 3072}, {1024 + 784, 1024 + 784}, {1024 + 784, 0}}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestRefusedSpendDoesNotHarmJoiners: the reads that a refused request has claimed are still made
// for the requests that joined them.
func TestRefusedSpendDoesNotHarmJoiners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket(map[string]int{"o": 10_000})
		r := New(b, newMapCache(), Options{PageSize: 1 << 10, Costs: apart()})
		defer r.Close()
		obj := testObject("o", 10_000)
		joined := make(chan error, 1)
		refused := errors.New("refused")
		acct := &Account{Spend: func(int64, int64) error {
			go func() {
				_, err := r.Fetch(t.Context(), obj, []Span{{0, 10}}, nil)
				joined <- err
			}()
			synctest.Wait()
			return refused
		}}
		_, err := r.Fetch(t.Context(), obj, []Span{{0, 10}, {8000, 8001}}, acct)
		if !errors.Is(err, refused) {
			t.Errorf("got %v", err)
		}
		if err := <-joined; err != nil {
			t.Errorf("the request that joined: %v", err)
		}
		if diff := cmp.Diff([]string{"o [0,1024)"}, b.taken()); diff != "" {
			t.Errorf("reads (-want +got):\n%s", diff)
		}
	})
}

func TestNotFound(t *testing.T) {
	f := func(
		name string, hook func(context.Context, string, int64, int64) (io.ReadCloser, error, bool),
	) {
		t.Helper()
		b := newTestBucket(nil)
		b.hook = hook
		r := New(b, newMapCache(), Options{})
		defer r.Close()
		_, err := r.Fetch(
			t.Context(), testObject("block/index", 100_000), []Span{{20_000, 20_001}}, nil,
		)
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: got %v", name, err)
		}
		var re *ReadError
		if !errors.As(err, &re) || re.Object != "block/index" || re.Off != 16384 {
			t.Errorf("%s: object and offset are not named: %v", name, err)
		}
		if n := len(b.taken()); n != 1 {
			t.Errorf("%s: %d reads, want 1", name, n)
		}
		b.checkClosed(t)
	}
	f("at once", nil)
	f("from the body", func(context.Context, string, int64, int64) (io.ReadCloser, error, bool) {
		return io.NopCloser(
			io.MultiReader(bytes.NewReader(make([]byte, 100)), brokenReader{errGone{}}),
		), nil, true
	})
	f("with a body", func(context.Context, string, int64, int64) (io.ReadCloser, error, bool) {
		return io.NopCloser(bytes.NewReader(nil)), errGone{}, true
	})
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

// TestWrongLength: bodies of the wrong length are typed errors, and the pages of a body that was
// too long are not cached.
func TestWrongLength(t *testing.T) {
	serve := func(
		data []byte,
	) func(context.Context, string, int64, int64) (io.ReadCloser, error, bool) {
		return func(context.Context, string, int64, int64) (io.ReadCloser, error, bool) {
			return io.NopCloser(&slowReader{data}), nil, true
		}
	}
	obj := testObject("o", 100_000)
	f := func(
		hook func(context.Context, string, int64, int64) (io.ReadCloser, error, bool), reads,
		cached int,
	) error {
		t.Helper()
		b, cache := newTestBucket(nil), newMapCache()
		b.hook = hook
		r := New(b, cache, Options{PageSize: 1 << 10})
		defer r.Close()
		_, err := r.Fetch(t.Context(), obj, []Span{{2048, 2048 + 4096}}, nil)
		if n := len(b.taken()); n != reads {
			t.Errorf("%d reads, want %d", n, reads)
		}
		if n := cache.len(); n != cached {
			t.Errorf("%d pages cached, want %d", n, cached)
		}
		b.checkClosed(t)
		return err
	}
	var short *ShortObjectError
	if err := f(serve(content(1500)), 1, 1); !errors.As(err, &short) ||
		*short != (ShortObjectError{Object: "o", Off: 2048, Want: 4096, Got: 1500}) {
		t.Errorf("got %v", err)
	}
	var long *LongBodyError
	err := f(serve(content(100_000)), 1+maxRereads, 0)
	if !errors.As(err, &long) || long.Object != "o" {
		t.Errorf("got %v", err)
	}
	if err := f(serve(nil), 1, 0); !errors.As(err, &short) || short.Got != 0 {
		t.Errorf("got %v", err)
	}
	// A body that never returns a byte.
	err = f(func(context.Context, string, int64, int64) (io.ReadCloser, error, bool) {
		return io.NopCloser(brokenReader{}), nil, true
	}, 1, 0)
	if !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("got %v", err)
	}
}

// slowReader returns at most 700 bytes at a time.
type slowReader struct{ data []byte }

func (r *slowReader) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 700)], r.data)
	r.data = r.data[n:]
	return n, nil
}

func TestPanicIsContained(t *testing.T) {
	b := newTestBucket(map[string]int{"o": 10_000})
	broken := true
	b.hook = func(context.Context, string, int64, int64) (io.ReadCloser, error, bool) {
		if broken {
			panic("boom")
		}
		return nil, nil, false
	}
	one := slots.New(slots.Options{Max: 1}) // a panic must release it
	r := New(b, newMapCache(), Options{Limiter: one, MaxInFlightBytes: 8 << 10})
	obj := testObject("o", 10_000)
	var pe *panics.Error
	if _, err := r.Fetch(t.Context(), obj, []Span{{0, 10_000}}, nil); !errors.As(err, &pe) ||
		pe.Value != "boom" {
		t.Errorf("got %v", err)
	}
	r.Close()
	broken = false
	r = New(b, newMapCache(), Options{Limiter: one, MaxInFlightBytes: 8 << 10})
	defer r.Close()
	if _, err := r.Fetch(t.Context(), obj, []Span{{0, 10_000}}, nil); err != nil {
		t.Errorf("after the panic: %v", err)
	}
}

// TestDeafBody: a body that ignores its context does not hold up waiters, and Close only until the
// body returns.
func TestDeafBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket(map[string]int{"o": 10_000})
		var bodies []*body
		b.hook = func(ctx context.Context, _ string, _, _ int64) (io.ReadCloser, error, bool) {
			bd := newBody(ctx)
			bd.deaf = true
			b.mu.Lock()
			defer b.mu.Unlock()
			bodies = append(bodies, bd)
			return bd, nil, true
		}
		r := New(b, newMapCache(), Options{FlightTimeout: 5 * time.Second})
		start := time.Now()
		_, err := r.Fetch(t.Context(), testObject("o", 10_000), []Span{{0, 1}}, nil)
		if !errors.Is(err, ErrTimeout) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != 5*time.Second+deafGrace {
			t.Errorf("took %v", took)
		}
		b.mu.Lock()
		for _, bd := range bodies {
			close(bd.feed)
		}
		b.mu.Unlock()
		r.Close()
		b.checkClosed(t)
	})
}

// TestUncached: pages without a key are read every time, and their reads are not shared.
func TestUncached(t *testing.T) {
	const size = 5000
	huge := testObject("huge", 0)
	huge.Size = 1 << 41
	none := testObject("o", size)
	none.ID = ObjectID(3, 1<<14)
	for _, tc := range []struct {
		obj   Object
		spans []Span
		reads int
	}{
		{none, []Span{{0, 10}}, 2},
		{testObject("o", size), []Span{{0, 10}}, 1},
		{huge, []Span{{1<<26<<10 - 5, 1 << 26 << 10}}, 1},     // page 2^26 - 1
		{huge, []Span{{1 << 26 << 10, 1<<26<<10 + 5}}, 2},     // page 2^26
		{huge, []Span{{1<<26<<10 - 5, 1<<26<<10 + 5}}, 1 + 1}, // both
	} {
		b, cache := newTestBucket(map[string]int{"o": size}), newMapCache()
		if tc.obj.Name == "huge" {
			b.hook = func(
				_ context.Context, _ string, _, length int64,
			) (io.ReadCloser, error, bool) {
				return io.NopCloser(bytes.NewReader(make([]byte, length))), nil, true
			}
		}
		r := New(b, cache, Options{PageSize: 1 << 10})
		for range 2 {
			if _, err := r.Fetch(t.Context(), tc.obj, tc.spans, nil); err != nil {
				t.Error(err)
			}
		}
		if reads := b.taken(); len(reads) != tc.reads {
			t.Errorf("%s %v: got reads %v, want %d", tc.obj.Name, tc.spans, reads, tc.reads)
		}
		r.Close()
	}
}

func TestObjectID(t *testing.T) {
	for _, tc := range []struct {
		block uint32
		file  int
		want  uint64
	}{
		{0, 0, 0}, {1, 0, 1 << 14}, {1, 2, 1<<14 | 2},
		{1<<24 - 1, 1<<14 - 1, 1<<38 - 1},
		{1 << 24, 0, Uncached}, {0, 1 << 14, Uncached}, {0, -1, Uncached},
	} {
		if got := ObjectID(tc.block, tc.file); got != tc.want {
			t.Errorf("block %d file %d: got %#x, want %#x", tc.block, tc.file, got, tc.want)
		}
	}
}

func TestBadSpans(t *testing.T) {
	b := newTestBucket(map[string]int{"o": 5000})
	r := New(b, newMapCache(), Options{})
	defer r.Close()
	obj := testObject("o", 5000)
	for _, spans := range [][]Span{
		{{-1, 10}}, {{0, 5001}}, {{10, 9}}, {{100, 200}, {99, 300}}, {{6000, 7000}},
		{{1 << 62, 1<<62 + 1}},
	} {
		var se *SpanError
		if _, err := r.Fetch(t.Context(), obj, spans, nil); !errors.As(err, &se) ||
			se.Object != "o" {
			t.Errorf("%v: got %v", spans, err)
		}
	}
	for _, spans := range [][]Span{nil, {{0, 0}}, {{5000, 5000}}} {
		p, err := r.Fetch(t.Context(), obj, spans, nil)
		if err != nil || p.PinnedBytes() != 0 || p.Have(0) != 0 {
			t.Errorf("%v: got %v", spans, err)
		}
	}
	if reads := b.taken(); len(reads) != 0 {
		t.Errorf("reads: %v", reads)
	}
}

// TestBounds: concurrent reads of a Fetch and of the process are bounded, and so are their bytes.
func TestBounds(t *testing.T) {
	f := func(name string, opts Options, pages, fetches, want int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			opts.PageSize, opts.Costs = 1<<10, cost.Fixed(cost.Model{MaxRead: 1 << 10})
			size := pages << 10
			b := newTestBucket(map[string]int{"o": size})
			running, most := 0, 0
			b.hook = func(context.Context, string, int64, int64) (io.ReadCloser, error, bool) {
				b.mu.Lock()
				running++
				most = max(most, running)
				b.mu.Unlock()
				time.Sleep(time.Second)
				b.mu.Lock()
				running--
				b.mu.Unlock()
				return nil, nil, false
			}
			opts.Limiter = slots.New(slots.Options{Max: 20})
			r := New(b, newMapCache(), opts)
			defer r.Close()
			for i := range fetches {
				go func() {
					obj := testObject("o", size)
					obj.ID = uint64(i)
					if _, err := r.Fetch(t.Context(), obj, []Span{{0, obj.Size}}, nil); err != nil {
						t.Error(err)
					}
				}()
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			b.mu.Lock()
			got := most
			b.mu.Unlock()
			if got != want || len(b.taken()) != pages*fetches {
				t.Errorf("%s: got %d reads at once, want %d", name, got, want)
			}
		})
	}
	f("reads of a fetch leave together", Options{}, 15, 1, 15)
	f("of the process", Options{}, 50, 4, 20)
	f("by bytes", Options{MaxInFlightBytes: 5 << 10}, 50, 4, 5)
	f("larger than all bytes allowed", Options{MaxInFlightBytes: 100}, 5, 2, 1)
}

// TestClose: waiting and later requests get ErrClosed.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket(map[string]int{"o": 10_000})
		b.hook = func(ctx context.Context, _ string, _, _ int64) (io.ReadCloser, error, bool) {
			return newBody(ctx), nil, true
		}
		r := New(b, newMapCache(), Options{
			PageSize: 1 << 10, Costs: cost.Fixed(cost.Model{MaxRead: 1 << 10}),
		})
		errs := make(chan error, 1)
		go func() {
			_, err := r.Fetch(t.Context(), testObject("o", 10_000), []Span{{0, 10_000}}, nil)
			errs <- err
		}()
		synctest.Wait()
		r.Close()
		r.Close()
		if err := <-errs; !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
		if _, err := r.Fetch(t.Context(), testObject("o", 10_000), []Span{{0, 1}}, nil); !errors.Is(
			err, ErrClosed,
		) {
			t.Errorf("got %v", err)
		}
		if _, err := r.Refetch(t.Context(), testObject("o", 10_000), Span{0, 1}, nil); !errors.Is(
			err, ErrClosed,
		) {
			t.Errorf("got %v", err)
		}
		if n := len(b.taken()); n != 10 {
			t.Errorf("%d reads, want 10", n)
		}
		b.checkClosed(t)
	})
}

// TestEndedContext: a request with an ended context starts no read, but gets cached pages.
func TestEndedContext(t *testing.T) {
	b := newTestBucket(map[string]int{"o": 10_000})
	r := New(b, newMapCache(), Options{PageSize: 1 << 10})
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := r.Fetch(ctx, testObject("o", 10_000), []Span{{0, 1}}, nil); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := r.Fetch(ctx, testObject("o", 10_000), []Span{{0, 1}}, nil); err != nil {
		t.Error(err)
	}
	if _, err := r.Fetch(ctx, testObject("o", 10_000), []Span{{5000, 5001}}, nil); !errors.Is(
		err, context.Canceled,
	) {
		t.Errorf("got %v", err)
	}
	if n := len(b.taken()); n != 1 {
		t.Errorf("%d reads, want 1", n)
	}
}

// TestSizeChanged: pages that were cached under another size of the object are not used.
func TestSizeChanged(t *testing.T) {
	b := newTestBucket(map[string]int{"o": 5000})
	r := New(b, newMapCache(), Options{PageSize: 1 << 10})
	defer r.Close()
	for _, size := range []int{4500, 5000, 5000} {
		p, err := r.Fetch(t.Context(), testObject("o", size), []Span{{4200, 4300}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := p.PinnedBytes(), int64(size-4096); got != want {
			t.Errorf("size %d: pinned %d bytes, want %d", size, got, want)
		}
	}
	if diff := cmp.Diff([]string{"o [4096,4500)", "o [4096,5000)"}, b.taken()); diff != "" {
		t.Errorf("reads (-want +got):\n%s", diff)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := newTestBucket(map[string]int{"o": 10_000})
	r := New(b, newMapCache(), Options{PageSize: 1 << 10, Kind: "chunks", Registerer: reg})
	other := New(b, newMapCache(), Options{Kind: "index", Registerer: reg})
	defer other.Close()
	for range 3 {
		_, err := r.Fetch(t.Context(), testObject("o", 10_000), []Span{{0, 9000}}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	want := `
# HELP larder_bucket_reads_total Ranged reads of the bucket that were started.
# TYPE larder_bucket_reads_total counter
larder_bucket_reads_total{kind="chunks"} 1
larder_bucket_reads_total{kind="index"} 0
# HELP larder_pages_fetched_bytes_total Bytes requested from the bucket.
# TYPE larder_pages_fetched_bytes_total counter
larder_pages_fetched_bytes_total{kind="chunks"} 9216
larder_pages_fetched_bytes_total{kind="index"} 0
# HELP larder_pages_hits_total Pages that requests needed and found in a tier of the cache.
# TYPE larder_pages_hits_total counter
larder_pages_hits_total{kind="chunks",tier="disk"} 0
larder_pages_hits_total{kind="chunks",tier="memcached"} 0
larder_pages_hits_total{kind="chunks",tier="memory"} 18
larder_pages_hits_total{kind="index",tier="disk"} 0
larder_pages_hits_total{kind="index",tier="memcached"} 0
larder_pages_hits_total{kind="index",tier="memory"} 0
# HELP larder_pages_touched_total Pages that requests needed.
# TYPE larder_pages_touched_total counter
larder_pages_touched_total{kind="chunks"} 27
larder_pages_touched_total{kind="index"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "larder_bucket_reads_total",
		"larder_pages_fetched_bytes_total", "larder_pages_hits_total",
		"larder_pages_touched_total"); err != nil {
		t.Error(err)
	}
	r.Close() // the names are free again
	New(b, newMapCache(), Options{Kind: "chunks", Registerer: reg}).Close()
}

// TestTrace: a read's span ends when its body has been read.
func TestTrace(t *testing.T) {
	rec := tracetest.NewSpanRecorder()
	tp := trace.NewTracerProvider(trace.WithSpanProcessor(rec))
	b := newTestBucket(map[string]int{"o": 10_000})
	endedEarly := false
	b.hook = func(_ context.Context, _ string, off, length int64) (io.ReadCloser, error, bool) {
		return io.NopCloser(readerFunc(func(p []byte) (int, error) {
			endedEarly = endedEarly || len(rec.Ended()) > 0
			if length == 0 {
				return 0, io.EOF
			}
			n := copy(p, b.objects["o"][off:off+length])
			off, length = off+int64(n), length-int64(n)
			return n, nil
		})), nil, true
	}
	r := New(b, newMapCache(), Options{Kind: "index"})
	ctx, span := tp.Tracer("test").Start(t.Context(), "request")
	if _, err := r.Fetch(ctx, testObject("o", 10_000), []Span{{9000, 9001}}, nil); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if endedEarly {
		t.Error("the span ended before the body had been read")
	}
	ended := rec.Ended()
	if len(ended) != 1 || ended[0].Name() != "bucket_getrange" ||
		ended[0].Parent().SpanID() != span.SpanContext().SpanID() {
		t.Fatalf("got spans %v", ended)
	}
	got := map[string]string{}
	for _, kv := range ended[0].Attributes() {
		got[string(kv.Key)] = kv.Value.String()
	}
	want := map[string]string{"object": "o", "offset": "8192", "length": "1808", "kind": "index"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestPagesAreExact: pages own exactly their bytes, so that the cache keeps no other memory alive.
func TestPagesAreExact(t *testing.T) {
	b, cache := newTestBucket(map[string]int{"o": 600_100}), newMapCache()
	r := New(b, cache, Options{PageSize: 4 << 10})
	defer r.Close()
	if _, err := r.Fetch(t.Context(), testObject("o", 600_100), []Span{{0, 600_100}},
		nil); err != nil {
		t.Fatal(err)
	}
	for no := range int64(147) {
		key, _ := pageKey(1, no)
		page, ok := cache.Get(key)
		want := b.objects["o"][no<<12 : min((no+1)<<12, 600_100)]
		if !ok || !bytes.Equal(page, want) || cap(page) != len(page) {
			t.Errorf("page %d: %d bytes, capacity %d, ok %v", no, len(page), cap(page), ok)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, tc := range []struct{ in, want int }{{0, 8 << 10}, {1, 512}, {5000, 8 << 10},
		{4096, 4096}, {1 << 30, 1 << 20}} {
		if got := (Options{PageSize: tc.in}).withDefaults().PageSize; got != tc.want {
			t.Errorf("page size %d: got %d, want %d", tc.in, got, tc.want)
		}
	}
	o := Options{}.withDefaults()
	if got := fmt.Sprint(o.FlightTimeout, o.MaxInFlightBytes); got != "1m0s 268435456" {
		t.Errorf("got %s", got)
	}
}

// lateCache calls a hook between a look-up that misses and its return.
type lateCache struct {
	*mapCache
	onMiss func()
}

func (c *lateCache) Get(key uint64) ([]byte, bool) {
	b, ok := c.mapCache.Get(key)
	if onMiss := c.onMiss; !ok && onMiss != nil {
		c.onMiss = nil
		onMiss()
	}
	return b, ok
}

// TestPublishedAfterMiss: a page that was published after the look-up missed it, by a flight that
// ended before it could be joined, is not read again.
func TestPublishedAfterMiss(t *testing.T) {
	b := newTestBucket(map[string]int{"o": 10_000})
	cache := &lateCache{mapCache: newMapCache()}
	r := New(b, cache, Options{PageSize: 1 << 10})
	defer r.Close()
	obj := testObject("o", 10_000)
	cache.onMiss = func() {
		if _, err := r.Fetch(t.Context(), obj, []Span{{0, 2000}}, nil); err != nil {
			t.Error(err)
		}
	}
	var acct Account
	p, err := r.Fetch(t.Context(), obj, []Span{{0, 10}, {9000, 9010}}, &acct)
	if err != nil {
		t.Fatal(err)
	}
	checkSpans(t, p, b.objects["o"], []Span{{0, 10}, {9000, 9010}})
	if diff := cmp.Diff([]string{"o [0,2048)", "o [8192,9216)"}, b.taken()); diff != "" {
		t.Errorf("reads (-want +got):\n%s", diff)
	}
	if acct.Hits.Load() != 1 || acct.Fetched.Load() != 1 {
		t.Errorf("%d hits, %d fetched", acct.Hits.Load(), acct.Fetched.Load())
	}
}
