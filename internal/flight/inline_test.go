package flight

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// TestInline: callers with one key share the work of the first, and each works for itself if that
// fails or panics. A caller whose context ends does not wait.
func TestInline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const others = 10
		for name, c := range map[string]struct {
			first        func() (int, error)
			works, joins int64
		}{
			"success": {func() (int, error) { return 7, nil }, 1, others},
			"failure": {func() (int, error) { return 0, errors.New("failure") }, 1 + others, 0},
			"panic":   {func() (int, error) { panic("panic") }, 1 + others, 0},
		} {
			var g Inline[string, int]
			var works, joins atomic.Int64
			goOn := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				defer func() { _ = recover() }()
				_, _, _ = g.Do(t.Context(), "key", func() (int, error) {
					works.Add(1)
					<-goOn
					return c.first()
				})
			})
			synctest.Wait()
			for range others {
				wg.Go(func() {
					v, joined, err := g.Do(t.Context(), "key", func() (int, error) {
						works.Add(1)
						return 7, nil
					})
					if v != 7 || err != nil {
						t.Errorf("%s: got %d, %v", name, v, err)
					}
					if joined {
						joins.Add(1)
					}
				})
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			synctest.Wait()
			_, joined, err := g.Do(ctx, "key", func() (int, error) { return 0, nil })
			if !joined || !errors.Is(err, context.Canceled) {
				t.Errorf("%s: a caller that left: joined %v, %v", name, joined, err)
			}
			v, joined, err := g.Do(t.Context(), "other", func() (int, error) { return 8, nil })
			if v != 8 || joined || err != nil {
				t.Errorf("%s: another key: %d, joined %v, %v", name, v, joined, err)
			}
			close(goOn)
			wg.Wait()
			if works.Load() != c.works || joins.Load() != c.joins || len(g.calls) != 0 {
				t.Errorf(
					"%s: %d worked and %d joined, want %d and %d; %d calls are left", name,
					works.Load(), joins.Load(), c.works, c.joins, len(g.calls),
				)
			}
		}
	})
}
