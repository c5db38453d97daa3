package flight

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// TestOneWorks: concurrent callers with one key share one call of work.
func TestOneWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[string, int]
		var worked, joined atomic.Int64
		goOn := make(chan struct{})
		work := func(context.Context) (int, error) {
			worked.Add(1)
			<-goOn
			return 7, nil
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				v, j, err := g.Do(t.Context(), "key", work)
				if v != 7 || err != nil {
					t.Errorf("got %d, %v", v, err)
				}
				if j {
					joined.Add(1)
				}
			})
		}
		wg.Go(func() { // another key does not share it
			if _, j, _ := g.Do(t.Context(), "other", work); j {
				t.Error("joined another key")
			}
		})
		synctest.Wait()
		close(goOn)
		wg.Wait()
		if worked.Load() != 2 || joined.Load() != 49 {
			t.Errorf("worked %d times, %d joined", worked.Load(), joined.Load())
		}
		v, j, err := g.Do(t.Context(), "key", func(context.Context) (int, error) { return 8, nil })
		if v != 8 || j || err != nil {
			t.Errorf("a result is remembered: %d, %v, %v", v, j, err)
		}
		if len(g.calls) != 0 {
			t.Errorf("%d calls are left", len(g.calls))
		}
	})
}

// TestLeaving: work continues without the caller that started it, and ends without any caller.
func TestLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[string, int]
		goOn := make(chan struct{})
		var ended error
		work := func(ctx context.Context) (int, error) {
			select {
			case <-goOn:
				return 7, nil
			case <-ctx.Done():
				ended = ctx.Err()
				return 0, ctx.Err()
			}
		}
		do := func(ctx context.Context) chan error {
			done := make(chan error, 1)
			go func() {
				_, _, err := g.Do(ctx, "key", work)
				done <- err
			}()
			synctest.Wait()
			return done
		}
		// The caller that started the work leaves. The one that joined gets the result.
		ctx, cancel := context.WithCancel(t.Context())
		first, second := do(ctx), do(t.Context())
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller that left got %v", err)
		}
		close(goOn)
		if err := <-second; err != nil || ended != nil {
			t.Errorf("the caller that stayed got %v; the work's context: %v", err, ended)
		}
		// The last caller that leaves ends the work.
		goOn = make(chan struct{})
		ctx, cancel = context.WithCancel(t.Context())
		first, second = do(ctx), do(ctx)
		cancel()
		<-first
		<-second
		synctest.Wait()
		if ended == nil || len(g.calls) != 0 {
			t.Errorf("the work's context: %v; %d calls are left", ended, len(g.calls))
		}
	})
}

// TestKeepRunning: work continues without callers, and can be joined.
func TestKeepRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := Group[string, int]{KeepRunning: true}
		finish := make(chan struct{})
		work := func(ctx context.Context) (int, error) {
			<-finish
			return 7, ctx.Err()
		}
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() {
			_, _, err := g.Do(ctx, "key", work)
			first <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("caller that left: got %v, want Canceled", err)
		}
		second := make(chan error, 1)
		go func() {
			v, joined, err := g.Do(t.Context(), "key", work)
			if v != 7 || !joined {
				t.Errorf("got %d, joined %v; want 7, joined", v, joined)
			}
			second <- err
		}()
		synctest.Wait()
		close(finish)
		if err := <-second; err != nil {
			t.Errorf("work was cancelled: %v", err)
		}
	})
}

// TestFailureIsOnes: callers that joined failed work call their own work once.
func TestFailureIsOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[string, int]
		goOn := make(chan struct{})
		failure := errors.New("limit of the first")
		first := make(chan error, 1)
		go func() {
			_, _, err := g.Do(
				t.Context(), "key",
				func(context.Context) (int, error) { <-goOn; return 0, failure },
			)
			first <- err
		}()
		synctest.Wait()
		var wg sync.WaitGroup
		var own atomic.Int64
		for range 10 {
			wg.Go(func() {
				v, joined, err := g.Do(
					t.Context(), "key",
					func(context.Context) (int, error) { own.Add(1); return 8, nil },
				)
				if v != 8 || joined || err != nil {
					t.Errorf("got %d, %v, %v", v, joined, err)
				}
			})
		}
		synctest.Wait()
		close(goOn)
		wg.Wait()
		if err := <-first; !errors.Is(err, failure) || own.Load() != 10 {
			t.Errorf("the first got %v; %d called their own work", err, own.Load())
		}
	})
}

// TestSharedError: a shared error is returned to all waiting callers, which do not call their own
// work.
func TestSharedError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := errors.New("bucket is away")
		g := Group[string, int]{SharedError: func(err error) bool { return errors.Is(err, fault) }}
		goOn := make(chan struct{})
		var worked atomic.Int64
		work := func(context.Context) (int, error) {
			worked.Add(1)
			<-goOn
			return 0, fault
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, _, err := g.Do(t.Context(), "key", work); !errors.Is(err, fault) {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		close(goOn)
		wg.Wait()
		if worked.Load() != 1 {
			t.Errorf("worked %d times", worked.Load())
		}
		v, _, err := g.Do(t.Context(), "key", func(context.Context) (int, error) { return 8, nil })
		if v != 8 || err != nil {
			t.Errorf("the failure is remembered: %d, %v", v, err)
		}
	})
}
