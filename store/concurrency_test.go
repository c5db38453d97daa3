package store

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestConcurrently counts in virtual time how many calls run at once. Calls that do not wait need
// no more goroutines than minBlocks.
func TestConcurrently(t *testing.T) {
	all := func(n int) int { return n }
	for _, tc := range []struct {
		name   string
		n      int
		each   time.Duration
		widen  func(int) int
		want   int64 // calls at once at most
		asked  bool
		rounds int
	}{
		{"none", 0, time.Second, all, 0, false, 0},
		{"few", 5, time.Second, all, 5, false, 1},
		{"from memory", 1000, 0, all, minBlocks, false, 0},
		{"all that wait", 100, time.Second, all, 100, true, 1},
		{"as many as are permitted", 1000, time.Second, all, maxBlocks, true, 4},
		{"half of it", 132, time.Second, func(n int) int { return n / 2 }, 82, true, 2},
		{"no memory", 64, time.Second, func(int) int { return 0 }, minBlocks, true, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var running, most, calls atomic.Int64
				asked := false
				began := time.Now()
				err := concurrently(t.Context(), tc.n, func(n int) int {
					asked = true
					return tc.widen(n)
				}, func(context.Context, int) error {
					calls.Add(1)
					n := running.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					if tc.each > 0 {
						time.Sleep(tc.each)
					}
					running.Add(-1)
					return nil
				})
				if err != nil || calls.Load() != int64(tc.n) {
					t.Errorf("%d calls of %d, error %v", calls.Load(), tc.n, err)
				}
				if most.Load() > tc.want || tc.each > 0 && most.Load() != tc.want {
					t.Errorf("%d calls at once, want %d", most.Load(), tc.want)
				}
				if asked != tc.asked {
					t.Errorf("asked for more goroutines: %v", asked)
				}
				want := time.Duration(tc.rounds) * tc.each
				if d := time.Since(began).Truncate(time.Second); d != want {
					t.Errorf("took %s, want %s", d, want)
				}
			})
		})
	}
}

// TestConcurrentlyFails checks that no further call begins after one has failed, and that a panic
// is an error.
func TestConcurrentlyFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("bad")
		var calls atomic.Int64
		err := concurrently(t.Context(), 1000, func(n int) int { return n },
			func(_ context.Context, i int) error {
				calls.Add(1)
				time.Sleep(time.Second)
				return bad
			})
		if !errors.Is(err, bad) || calls.Load() > maxBlocks {
			t.Errorf("%d calls, error %v", calls.Load(), err)
		}
		err = concurrently(t.Context(), 2, nil, func(context.Context, int) error { panic("oh") })
		if err == nil {
			t.Error("no error of a call that panics")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := concurrently(ctx, 2, nil, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("after the end of its context: %v", err)
		}
	})
}
