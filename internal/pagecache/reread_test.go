package pagecache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"larder/internal/bytecache"
)

// TestFailedReadsAreNotRepeated: 50 identical cold requests whose reads fail share one read of each
// range, and all return its error. internal/bucket/retry alone repeats reads of the bucket.
func TestFailedReadsAreNotRepeated(t *testing.T) {
	for name, tc := range map[string]struct {
		cut  int // bytes before the failure
		want error
	}{
		"opening": {want: errBroken},
		"body":    {cut: 2500, want: errBroken},
		"denied":  {want: errDenied},
		"gone":    {want: ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const size = 100_000
				b := newTestBucket(map[string]int{"o": size})
				begin := make(chan struct{})
				b.hook = func(
					_ context.Context, _ string, off, length int64,
				) (io.ReadCloser, error, bool) {
					<-begin
					switch {
					case tc.want == ErrNotFound:
						return nil, errGone{}, true
					case tc.cut == 0:
						return nil, tc.want, true
					}
					sent := b.objects["o"][off : off+min(length, int64(tc.cut))]
					broken := io.MultiReader(bytes.NewReader(sent), brokenReader{tc.want})
					return io.NopCloser(broken), nil, true
				}
				r := New(b, bytecache.None{}, Options{PageSize: 1 << 10})
				defer r.Close()
				spans := []Span{{0, 10}, {5000, 9000}, {50_000, 50_001}, {99_999, 100_000}}
				var wg sync.WaitGroup
				for range 50 {
					wg.Go(func() {
						_, err := r.Fetch(t.Context(), testObject("o", size), spans, nil)
						if !errors.Is(err, tc.want) {
							t.Errorf("got %v, want %v", err, tc.want)
						}
					})
				}
				synctest.Wait()
				close(begin)
				wg.Wait()
				synctest.Wait() // for the reads that did not fail first
				if n := len(b.taken()); n > 4 {
					t.Errorf("%d reads, want 4 or fewer", n)
				}
				b.checkClosed(t)
			})
		})
	}
}

// TestABodyTooLongIsReadAgain: a store ignores the range a few times and sends other bytes. None of
// these is in the result or in the cache.
func TestABodyTooLongIsReadAgain(t *testing.T) {
	const size = 100_000
	b, cache := newTestBucket(map[string]int{"o": size}), newMapCache()
	ignored := 0
	b.hook = func(context.Context, string, int64, int64) (io.ReadCloser, error, bool) {
		if ignored++; ignored > maxRereads {
			return nil, nil, false
		}
		return io.NopCloser(&slowReader{b.objects["o"]}), nil, true
	}
	r := New(b, cache, Options{PageSize: 1 << 10})
	defer r.Close()
	for range 2 { // from the bucket and from the cache
		spans := []Span{{2048, 2048 + 8192}}
		p, err := r.Fetch(t.Context(), testObject("o", size), spans, nil)
		if err != nil {
			t.Fatal(err)
		}
		checkSpans(t, p, b.objects["o"], spans)
	}
	r.Close() // a body is closed after its bytes were published
	b.checkClosed(t)
}
