package flight

import (
	"context"
	"errors"
	"sync"
)

// errUnfinished is the failure of work that panicked.
var errUnfinished = errors.New("the work that was shared did not end")

// Inline shares work by key, as Group does, but the first caller does the work itself. It is for
// work that belongs to the caller's request and cannot outlive it. The zero value works; it must
// not be copied.
type Inline[K comparable, V any] struct {
	// Waits is that of Group.
	Waits func(ctx, starter context.Context) (ended func())

	mu    sync.Mutex // guards calls; held for map operations only
	calls map[K]*inlineCall[V]
}

// inlineCall is work that runs.
type inlineCall[V any] struct {
	starter context.Context // nil without Inline.Waits

	done  chan struct{} // closed when value and err are final
	value V
	err   error
}

// Do returns the result of work. If another caller is doing work for the same key already, Do waits
// for its result, and joined is true. A caller whose own context ends returns at once.
//
// Any failure belongs to the caller that did the work. Each caller that joined then calls its own
// work, which is not shared again. A failure is not remembered.
func (g *Inline[K, V]) Do(
	ctx context.Context, key K, work func() (V, error),
) (v V, joined bool, err error) {
	g.mu.Lock()
	c, joined := g.calls[key]
	if !joined {
		c = &inlineCall[V]{done: make(chan struct{}), err: errUnfinished}
		if g.calls == nil {
			g.calls = map[K]*inlineCall[V]{}
		}
		if g.Waits != nil {
			c.starter = ctx
		}
		g.calls[key] = c
	}
	g.mu.Unlock()
	if !joined {
		defer g.finish(key, c)
		c.value, c.err = work()
		return c.value, false, c.err
	}
	ended := func() {}
	if g.Waits != nil {
		ended = g.Waits(ctx, c.starter)
	}
	select {
	case <-c.done:
		ended()
	case <-ctx.Done():
		ended()
		return v, true, ctx.Err()
	}
	if c.err != nil {
		v, err = work()
		return v, false, err
	}
	return c.value, true, nil
}

// finish publishes a result, or the failure that c has had from the start if work panicked.
func (g *Inline[K, V]) finish(key K, c *inlineCall[V]) {
	g.mu.Lock()
	delete(g.calls, key)
	g.mu.Unlock()
	close(c.done)
}
