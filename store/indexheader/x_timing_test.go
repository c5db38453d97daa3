package indexheader

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/localfs"
)

const million = 1_000_000

// millionHeader builds the header of a block with 1,000,000 values of one label in dir.
func millionHeader(b testing.TB, opts Options) (*Manager, Source) {
	b.Helper()
	bkt := newBucket()
	src := bkt.add(1, synthIndex(b, million))
	opts.Bucket = bkt
	m, err := New(opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(m.Close)
	_, release, err := m.Acquire(context.Background(), src)
	if err != nil {
		b.Fatal(err)
	}
	m.waitPersisted(src)
	release()
	return m, src
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// BenchmarkOpenMillion opens the header of a block with 1,000,000 values of one label. The target
// is 20 ms and 5 MiB of heap.
func BenchmarkOpenMillion(b *testing.B) {
	m, src := millionHeader(b, Options{Dir: localfs.At(b.TempDir())})
	b.ReportAllocs()
	var keep []*reader
	before := heapInUse()
	for b.Loop() {
		f, err := openFile(m.opts.Dir, src.ID)
		if err != nil {
			b.Fatal(err)
		}
		r, err := open(f, src, m.look)
		if err != nil {
			b.Fatal(err)
		}
		if len(keep) < 8 {
			keep = append(keep, r)
		} else {
			r.close()
		}
	}
	b.ReportMetric(float64(heapInUse()-before)/float64(len(keep)), "heap-B/header")
	b.ReportMetric(float64(keep[0].size), "file-B")
	for _, r := range keep {
		r.close()
	}
}

// ascending returns n distinct ascending references below max, spread over all of them or clustered
// in a run of 4n.
func ascending(rnd *rand.Rand, n, max int, clustered bool) []uint32 {
	base, span := 0, max
	if clustered {
		span = 4 * n
		base = rnd.IntN(max - span)
	}
	refs := make([]uint32, n)
	for i := range refs {
		refs[i] = uint32(base + i*(span/n) + rnd.IntN(span/n))
	}
	return refs
}

// BenchmarkSymbols resolves 5,000 ascending references of 1,000,000 symbols.
func BenchmarkSymbols(b *testing.B) {
	for _, cache := range []int64{-1, 0} {
		for _, clustered := range []bool{false, true} {
			b.Run(fmt.Sprintf("cache=%v/clustered=%v", cache == 0, clustered), func(b *testing.B) {
				m, src := millionHeader(
					b, Options{Dir: localfs.At(b.TempDir()), BlockCacheBytes: cache},
				)
				h := acquire(b, m, src)
				refs := ascending(rand.New(rand.NewPCG(1, 1)), 5000, million, clustered)
				n := 0
				f := func(_ int, s []byte) error { n += len(s); return nil }
				for range 2 {
					if err := h.Symbols(context.Background(), refs, f); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportAllocs()
				for b.Loop() {
					if err := h.Symbols(context.Background(), refs, f); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkLists looks up 1,000 of 1,000,000 values.
func BenchmarkLists(b *testing.B) {
	for _, cache := range []int64{-1, 0} {
		for _, clustered := range []bool{false, true} {
			b.Run(fmt.Sprintf("cache=%v/clustered=%v", cache == 0, clustered), func(b *testing.B) {
				m, src := millionHeader(
					b, Options{Dir: localfs.At(b.TempDir()), BlockCacheBytes: cache},
				)
				h := acquire(b, m, src)
				all := allValues(b, h)
				var values []string
				for _, i := range ascending(rand.New(rand.NewPCG(1, 1)), 1000, million, clustered) {
					values = append(values, all[i])
				}
				var dst []List
				var err error
				for range 2 {
					if dst, err = h.Lists(context.Background(), "pod", values,
						dst[:0]); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportAllocs()
				for b.Loop() {
					if dst, err = h.Lists(context.Background(), "pod", values,
						dst[:0]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func allValues(t testing.TB, h *Header) []string {
	t.Helper()
	var all []string
	if err := h.Values(context.Background(), "pod", "", func(v []byte, _ List) (bool, error) {
		all = append(all, string(v))
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// BenchmarkValues streams 1,000,000 values, same as a regular expression.
func BenchmarkValues(b *testing.B) {
	m, src := millionHeader(b, Options{Dir: localfs.At(b.TempDir())})
	h := acquire(b, m, src)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		if err := h.Values(context.Background(), "pod", "", func(v []byte, _ List) (bool, error) {
			n += len(v)
			return true, nil
		}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAppendStrings appends 1,000,000 values, same as a label request.
func BenchmarkAppendStrings(b *testing.B) {
	m, src := millionHeader(b, Options{Dir: localfs.At(b.TempDir())})
	h := acquire(b, m, src)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		buf, err = h.AppendStrings(
			context.Background(), "pod", buf[:0],
			func(dst []byte, n int) ([]byte, error) { return slices.Grow(dst, n+len(dst)), nil },
		)
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBuildMillion builds the header of a block with 1,000,000 values of one label from a
// bucket in memory.
func BenchmarkBuildMillion(b *testing.B) {
	idx := synthIndex(b, million)
	for b.Loop() {
		bkt := newBucket()
		src := bkt.add(1, idx)
		m, err := New(Options{Dir: localfs.At(b.TempDir()), Bucket: bkt})
		if err != nil {
			b.Fatal(err)
		}
		_, release, err := m.Acquire(context.Background(), src)
		if err != nil {
			b.Fatal(err)
		}
		m.waitPersisted(src)
		release()
		m.Close()
	}
}

// BenchmarkBuildSmall builds 500 headers of small blocks at once, with 20 ms to the first byte. The
// first query over all of them waits that long.
func BenchmarkBuildSmall(b *testing.B) {
	idx := synthIndex(b, 500)
	bkt := newBucket()
	bkt.setFault(func(ctx context.Context, _ get, _ int) (io.ReadCloser, error, bool) {
		t := time.NewTimer(20 * time.Millisecond)
		defer t.Stop()
		select {
		case <-t.C:
			return nil, nil, false
		case <-ctx.Done():
			return nil, ctx.Err(), true
		}
	})
	var srcs []Source
	for i := range 500 {
		src := bkt.add(byte(i), idx)
		src.ID[14] = byte(i >> 8)
		srcs = append(srcs, src)
	}
	for b.Loop() {
		m, err := New(Options{Dir: localfs.At(b.TempDir()), Bucket: bkt})
		if err != nil {
			b.Fatal(err)
		}
		var left atomic.Int64
		left.Store(int64(len(srcs)))
		done := make(chan struct{})
		for _, src := range srcs {
			go func() {
				_, release, err := m.Acquire(context.Background(), src)
				if err != nil {
					b.Error(err)
				} else {
					release()
				}
				if left.Add(-1) == 0 {
					close(done)
				}
			}()
		}
		<-done
		b.StopTimer()
		m.Close()
		b.StartTimer()
	}
}

// TestOpenMillion checks the targets of time, with tolerance for a busy machine, and heap for
// opening a header of 1,000,000 values. It also checks that a build does not keep the table in
// memory.
func TestOpenMillion(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("builds an index of a million values and measures time")
	}
	idx := synthIndex(t, million)
	bkt := newBucket()
	src := bkt.add(1, idx)
	m := newManager(t, Options{Dir: localfs.At(t.TempDir()), Bucket: bkt})
	base := heapInUse()
	var peak atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			var s runtime.MemStats
			runtime.ReadMemStats(&s)
			peak.Store(max(peak.Load(), int64(s.HeapAlloc)-base))
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	_, release, err := m.Acquire(context.Background(), src)
	close(stop)
	<-stopped
	if err != nil {
		t.Fatal(err)
	}
	m.waitPersisted(src)
	release()
	tables := int64(len(idx)) - 16*million
	t.Logf("index %d bytes, tables %d; peak heap of the build %d", len(idx), tables, peak.Load())
	// The limit allows for the parts in flight, their garbage before a collection, and the sparse
	// tables.
	if limit := int64(64 << 20); peak.Load() > limit {
		t.Errorf("the build used %d bytes of heap, want at most %d", peak.Load(), limit)
	}

	before := heapInUse()
	var readers []*reader
	best := time.Hour
	for range 5 {
		begin := time.Now()
		f, err := openFile(m.opts.Dir, src.ID)
		if err != nil {
			t.Fatal(err)
		}
		r, err := open(f, src, m.look)
		if err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(begin))
		readers = append(readers, r)
	}
	heap := (heapInUse() - before) / int64(len(readers))
	t.Logf(
		"file %d bytes, opened in %s, heap %d bytes, estimated %d", readers[0].size, best, heap,
		readers[0].heap,
	)
	if best > 20*time.Millisecond {
		t.Errorf("opening took %s", best)
	}
	if heap > 5<<20 || heap > 2*readers[0].heap {
		t.Errorf("an open header uses %d bytes, estimated %d", heap, readers[0].heap)
	}
	for _, r := range readers {
		r.close()
	}
}

// Warm look-ups do not allocate.
func TestLookupAllocations(t *testing.T) {
	idx := synthIndex(t, 20_000)
	bkt := newBucket()
	m := newManager(t, Options{Dir: localfs.At(t.TempDir()), Bucket: bkt})
	h := acquire(t, m, bkt.add(1, idx))
	ctx := context.Background()
	values := allValues(t, h)
	refs := ascending(rand.New(rand.NewPCG(1, 1)), 5000, 20_000, false)
	var dst []List
	n := 0
	for name, f := range map[string]func(){
		"symbols": func() {
			h.Symbols(ctx, refs, func(_ int, s []byte) error {
				n += len(s)
				return nil
			})
		},
		"lists": func() { dst, _ = h.Lists(ctx, "pod", values, dst[:0]) },
		"values": func() {
			h.Values(ctx, "pod", "", func(v []byte, _ List) (bool, error) {
				n += len(v)
				return true, nil
			})
		},
	} {
		f()
		f() // the second call fills the cache of blocks
		// The progress of a walk keeps the last value of a block, and a collection in between may
		// empty the pool.
		if got := testing.AllocsPerRun(20, f); got > 3 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
	if n == 0 {
		t.Error("nothing was read")
	}
}
