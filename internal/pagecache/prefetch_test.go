package pagecache

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"larder/internal/bucket/slots"
	"larder/internal/bytecache"
)

// TestPrefetch: one read returns the pages of a span. The cache does not get them, no metric of
// requests counts it, and a request that needs one of the pages meanwhile waits for this read.
func TestPrefetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 10<<10 + 100
		b := newTestBucket(map[string]int{"o": size})
		cache := newMapCache()
		reg := prometheus.NewRegistry()
		o := Options{PageSize: 1 << 10, Kind: "index", Registerer: reg, Costs: apart()}
		r := New(b, cache, o)
		defer r.Close()
		obj := Object{Name: "o", Size: size, ID: ObjectID(1, 0)}
		if keys := r.Keys(obj, Span{1500, size}); len(keys) != 10 || keys[0].Local&0xff != 1 {
			t.Errorf("keys %v", keys)
		}
		// A request reads pages 3 and 4.
		if _, err := r.Fetch(t.Context(), obj, []Span{{3 << 10, 5 << 10}}, nil); err != nil {
			t.Fatal(err)
		}
		b.taken()
		before := cache.len()
		ahead, need := slots.LookAhead(t.Context())
		defer need()
		kept := 0
		keep := func(key bytecache.Key, value []byte) {
			if no := key.Local & 0xff; !bytes.Equal(value, content(size)[no<<10:][:len(value)]) {
				t.Errorf("page %d has wrong bytes", no)
			}
			kept++
		}
		done, values, err := r.Prefetch(ahead, obj, Span{1500, size}, keep)
		if err != nil || done != (Span{1 << 10, size}) || len(values) != 10 {
			t.Fatalf("%v, %d pages, %v", done, len(values), err)
		}
		if got := bytes.Join(values, nil); !bytes.Equal(got, content(size)[1<<10:]) {
			t.Error("wrong bytes")
		}
		if reads := b.taken(); len(reads) != 1 {
			t.Errorf("reads %v, want one", reads)
		}
		if kept != len(values) {
			t.Errorf("%d pages were kept, want %d", kept, len(values))
		}
		if cache.len() != before {
			t.Errorf("the cache got %d pages", cache.len()-before)
		}
		if n := testutil.ToFloat64(r.metrics.reads); n != 1 {
			t.Errorf("%v reads of requests are counted, want 1", n)
		}
	})
}

// TestPrefetchLeavesOutPagesInFlight: it reads the first stretch of pages that no other read
// brings.
func TestPrefetchLeavesOutPagesInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 10 << 10
		b := newTestBucket(map[string]int{"o": size})
		// All slots are in use: reads wait.
		limiter := slots.New(slots.Options{Max: 1})
		r := New(b, newMapCache(), Options{PageSize: 1 << 10, Limiter: limiter, Costs: apart()})
		defer r.Close()
		if err := limiter.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		obj := Object{Name: "o", Size: size, ID: ObjectID(1, 0)}
		request := func(spans ...Span) {
			go func() {
				if _, err := r.Fetch(context.Background(), obj, spans, nil); err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}
		request(Span{0, 2 << 10}, Span{5 << 10, 6 << 10})
		got := make(chan Span, 2)
		ahead := func() {
			go func() {
				ctx := slots.Background(context.Background())
				done, _, err := r.Prefetch(ctx, obj, Span{0, size}, newMapCache().Set)
				if err != nil {
					t.Error(err)
				}
				got <- done
			}()
			synctest.Wait()
		}
		ahead() // pages 2 to 4
		request(Span{3 << 10, 4 << 10})
		ahead() // pages 6 to 9
		limiter.Release()
		time.Sleep(time.Second)
		all := []Span{<-got, <-got}
		slices.SortFunc(all, func(a, b Span) int { return int(a.Off - b.Off) })
		if want := []Span{{2 << 10, 5 << 10}, {6 << 10, size}}; !slices.Equal(all, want) {
			t.Errorf("prefetch read %v, want %v", all, want)
		}
		if reads := b.taken(); len(reads) != 4 {
			t.Errorf("reads %v, want 4", reads)
		}
	})
}
