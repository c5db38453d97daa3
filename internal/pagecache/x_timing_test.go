package pagecache

import (
	"fmt"
	"testing"

	"larder/internal/bytecache"
)

// warm returns a reader, and an object whose pages are all in memory.
func warm(tb testing.TB, size int64, cache Cache) (*Reader, Object) {
	tb.Helper()
	b := newTestBucket(map[string]int{"o": int(size)})
	r := New(b, cache, Options{})
	tb.Cleanup(r.Close)
	obj := testObject("o", int(size))
	if _, err := r.Fetch(tb.Context(), obj, []Span{{0, size}}, nil); err != nil {
		tb.Fatal(err)
	}
	return r, obj
}

func memory(tb testing.TB) Cache {
	m := bytecache.NewMemory(bytecache.Options{MaxBytes: 256 << 20})
	tb.Cleanup(m.Close)
	return m
}

// TestHitAllocations: a hit makes two allocations for any number of pages.
func TestHitAllocations(t *testing.T) {
	r, obj := warm(t, 1<<20, newMapCache())
	ctx := t.Context()
	for _, spans := range [][]Span{{{0, 1}}, {{0, 1 << 20}},
		{{0, 1}, {100_000, 200_000}, {300_000, 300_001}}} {
		var acct Account
		n := testing.AllocsPerRun(100, func() {
			if _, err := r.Fetch(ctx, obj, spans, &acct); err != nil {
				t.Fatal(err)
			}
		})
		if n > 2 {
			t.Errorf("%d spans: %v allocations", len(spans), n)
		}
	}
}

func TestBytesAllocations(t *testing.T) {
	p, _ := sparse(t)
	c := p.Cursor()
	if n := testing.AllocsPerRun(1000, func() {
		c.Bytes(600, 300, nil)
		p.Bytes(3072, 512, nil)
		p.Have(5000)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkFetchHit fetches whole windows and scattered records from memory.
func BenchmarkFetchHit(b *testing.B) {
	const size = 32 << 20
	r, obj := warm(b, size, memory(b))
	run := func(name string, spans []Span) {
		b.Run(name, func(b *testing.B) {
			var acct Account
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Fetch(ctx, obj, spans, &acct); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(
				float64(b.Elapsed().Nanoseconds())/float64(acct.Touched.Load()), "ns/page",
			)
		})
	}
	run("1page", []Span{{100, 200}})
	run("512pages", []Span{{0, 4 << 20}})
	var records []Span
	for off := int64(0); off < 4<<20; off += 300 {
		records = append(records, Span{off, off + 300})
	}
	run(fmt.Sprintf("512pages/%drecords", len(records)), records)
	var scattered []Span
	for off := int64(0); off+300 < size; off += 100_000 {
		scattered = append(scattered, Span{off, off + 300})
	}
	run(fmt.Sprintf("scattered/%drecords", len(scattered)), scattered)
}

// BenchmarkFetchMiss reads a window from a bucket in memory.
func BenchmarkFetchMiss(b *testing.B) {
	const size = 4 << 20
	bucket := newTestBucket(map[string]int{"o": size})
	r := New(bucket, bytecache.None{}, Options{})
	defer r.Close()
	b.ReportAllocs()
	b.SetBytes(size)
	for b.Loop() {
		if _, err := r.Fetch(b.Context(), testObject("o", size), []Span{{0, size}},
			nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCursor(b *testing.B) {
	const size = 4 << 20
	r, obj := warm(b, size, memory(b))
	p, err := r.Fetch(b.Context(), obj, []Span{{0, size}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	const record = 300
	b.Run("ascending", func(b *testing.B) {
		b.ReportAllocs()
		var scratch []byte
		c := p.Cursor()
		off := int64(0)
		for b.Loop() {
			_, scratch, _ = c.Bytes(off, record, scratch[:0])
			if off += record; off+record > size {
				off = 0
			}
		}
	})
	b.Run("random", func(b *testing.B) {
		b.ReportAllocs()
		var scratch []byte
		c := p.Cursor()
		off := int64(0)
		for b.Loop() {
			_, scratch, _ = c.Bytes(off, record, scratch[:0])
			if off += 1_000_003; off+record > size {
				off %= 300_007
			}
		}
	})
}
