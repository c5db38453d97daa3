package pagecache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"larder/internal/bytecache"
)

// TestFailedReadsAreRepeatedOnce: 50 identical cold requests whose reads fail make at most twice
// the reads of one, and all are answered, or all fail; so does who joins meanwhile.
func TestFailedReadsAreRepeatedOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		failures int // of each range
		cut      int // bytes before each
		want     error
	}{
		"first opening":   {failures: 1},
		"first body":      {failures: 1, cut: 2500},
		"both":            {failures: 2, cut: 2500, want: errBroken},
		"all, from zero":  {failures: 100, want: errBroken},
		"repeated, below": {failures: 1, want: errRepeated{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const size = 100_000
				b := newTestBucket(map[string]int{"o": size})
				hold := make(chan struct{})
				failed := map[int64]int{}
				b.hook = func(_ context.Context, _ string, off, length int64) (io.ReadCloser, error, bool) {
					<-hold
					time.Sleep(time.Second)
					b.mu.Lock()
					defer b.mu.Unlock()
					if failed[off+length]++; failed[off+length] > tc.failures {
						return nil, nil, false
					}
					broken := errBroken
					if tc.want == (errRepeated{}) {
						broken = tc.want
					}
					if tc.cut == 0 {
						return nil, broken, true
					}
					return io.NopCloser(
						io.MultiReader(
							bytes.NewReader(b.objects["o"][off:off+min(length, int64(tc.cut))]),
							failing{broken},
						),
					), nil, true
				}
				r := New(b, bytecache.None{}, Options{PageSize: 1 << 10})
				defer r.Close()
				spans := []Span{{0, 10}, {5000, 9000}, {50_000, 50_001}, {99_999, 100_000}}
				fetch := func() {
					p, err := r.Fetch(t.Context(), testObject("o", size), spans, nil)
					if !errors.Is(err, tc.want) {
						t.Errorf("got %v, want %v", err, tc.want)
					}
					if err == nil {
						checkSpans(t, p, b.objects["o"], spans)
					}
				}
				var wg sync.WaitGroup
				for range 50 {
					wg.Go(fetch)
				}
				synctest.Wait()
				close(hold)
				if tc.failures == 1 && tc.want == nil {
					time.Sleep(1500 * time.Millisecond) // the second reads run
					wg.Go(fetch)
				}
				wg.Wait()
				if n := len(b.taken()); n > 8 || tc.want == (errRepeated{}) && n != 4 {
					t.Errorf("%d reads, and one request needs 4", n)
				}
			})
		})
	}
}

// errRepeated is the error of a bucket that repeats requests by itself.
type errRepeated struct{}

func (errRepeated) Error() string { return "refused (5 requests)" }
func (errRepeated) Attempts() int { return 5 }

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestABodyTooLongIsReadAnew: a store that ignored the range a few times has sent other bytes, of
// which none is in the answer or stays cached.
func TestABodyTooLongIsReadAnew(t *testing.T) {
	const size = 100_000
	b, cache := newTestBucket(map[string]int{"o": size}), newMapCache()
	ignored := 0
	b.hook = func(context.Context, string, int64, int64) (io.ReadCloser, error, bool) {
		if ignored++; ignored > maxLongRepeats {
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
	r.Close() // a body is closed after its bytes were handed out
	b.checkClosed(t)
}

// TestDeniedReadsAreNotRepeated: what the bucket refuses it refuses again.
func TestDeniedReadsAreNotRepeated(t *testing.T) {
	b := newTestBucket(map[string]int{"o": 1000})
	b.hook = func(context.Context, string, int64, int64) (io.ReadCloser, error, bool) { return nil, errDenied, true }
	r := New(b, bytecache.None{}, Options{PageSize: 1 << 10})
	defer r.Close()
	if _, err := r.Fetch(t.Context(), testObject("o", 1000), []Span{{0, 10}}, nil); !errors.Is(
		err, errDenied,
	) {
		t.Errorf("got %v", err)
	}
	if n := len(b.taken()); n != 1 {
		t.Errorf("%d reads, want 1", n)
	}
}
