package objectstore

import (
	"context"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minio/minio-go/v7"

	"larder/internal/faultstore"
)

// TestModel reads objects in virtual time and compares times and counts with the model.
func TestModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objects := map[string][]byte{"a": make([]byte, 1<<20)}
		b := Wrap(faultstore.InMemory(objects), Model{})
		read := func(n int64) (time.Duration, error) {
			start := time.Now()
			r, err := b.GetRange(t.Context(), "a", 0, n)
			if err != nil {
				return time.Since(start), err
			}
			got, err := io.Copy(io.Discard, r)
			if got != n {
				t.Errorf("read %d bytes, want %d", got, n)
			}
			return time.Since(start), err
		}
		if d, err := read(1000); d != 0 || err != nil {
			t.Errorf("without a model: %v, %v", d, err)
		}
		b.SetModel(Model{FirstByte: 20 * time.Millisecond, BytesPerSecond: 1_000_000})
		b.Record(true)
		if d, err := read(100_000); d != 120*time.Millisecond || err != nil {
			t.Errorf("20 ms and 100 kB at 1 MB/s: %v, %v", d, err)
		}
		if rs := b.Reads(); len(rs) != 1 || rs[0].Bytes != 100_000 ||
			rs[0].End.Sub(rs[0].Start) != 120*time.Millisecond {
			t.Errorf("recorded %+v", rs)
		}

		// The seed repeats times and errors.
		var first []time.Duration
		for range 2 {
			b.SetModel(Model{FirstByte: 20 * time.Millisecond, Spread: 0.5, Errors: 0.1, Seed: 7})
			var times []time.Duration
			failed := 0
			for range 1000 {
				d, err := read(1)
				times = append(times, d)
				if minio.ToErrorResponse(err).StatusCode == 500 {
					failed++
				}
			}
			if first == nil {
				first = slices.Clone(times)
			} else if !slices.Equal(first, times) {
				t.Error("the same seed drew other times")
			}
			slices.Sort(times)
			if m := times[500]; m < 18*time.Millisecond || m > 22*time.Millisecond {
				t.Errorf("median %v, want about 20 ms", m)
			}
			if p := times[990]; p < 50*time.Millisecond || p > 85*time.Millisecond {
				t.Errorf("99th percentile %v, want about 64 ms", p)
			}
			if failed < 70 || failed > 130 {
				t.Errorf("%d of 1000 reads failed, want about 100", failed)
			}
		}

		b.SetModel(Model{MaxRate: 10})
		throttled := 0
		for range 30 {
			if _, err := read(1); minio.ToErrorResponse(err).StatusCode == 503 {
				throttled++
			}
		}
		if throttled != 20 {
			t.Errorf("%d of 30 reads at once were throttled, want 20 at 10 a second", throttled)
		}
		before := b.Counts()
		if _, err := b.Attributes(t.Context(), "a"); err == nil {
			t.Error("Attributes is not throttled")
		}
		if got, want := b.Counts().Minus(before), (Counts{Others: 1, Errors: 1}); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
	})
}

// TestCountApart: reads that are counted apart are in no other count, and not recorded.
func TestCountApart(t *testing.T) {
	b := Wrap(faultstore.InMemory(map[string][]byte{"a": make([]byte, 100)}), Model{})
	type key struct{}
	b.CountApart(func(ctx context.Context) bool { return ctx.Value(key{}) != nil })
	b.Record(true)
	for _, ctx := range []context.Context{t.Context(), context.WithValue(t.Context(), key{}, 1)} {
		r, err := b.GetRange(ctx, "a", 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
	}
	want := Counts{Reads: 1, Bytes: 10, ApartReads: 1, ApartBytes: 10}
	if got := b.Counts(); got != want || len(b.Reads()) != 1 {
		t.Errorf("counts %+v, %d recorded reads", got, len(b.Reads()))
	}
}
