package flight

import (
	"context"
	"sync"

	"larder/internal/panics"
)

// Group shares work by key. The zero value works; it must not be copied.
type Group[K comparable, V any] struct {
	// SharedError reports whether an error concerns all waiting callers: it comes from what they
	// share, such as the bucket, and not from the caller that started the work. Default nil: no
	// error does. Set it before first use.
	SharedError func(error) bool

	// KeepRunning lets work run to its end after its last caller has left. Further callers can join
	// it. Default false: such work is cancelled. Set it before first use.
	KeepRunning bool

	// Share returns the context of work, given the context of the caller that started it, and a
	// function that is called with the context of every caller that joins. Default nil: work does
	// not depend on who waits for it. Set it before first use.
	Share func(ctx context.Context) (work context.Context, join func(ctx context.Context))

	// Waits is called by each caller that joins, with its context and that of the caller that
	// started the work. It calls the result when it has waited. Default nil. Set it before first
	// use.
	Waits func(ctx, starter context.Context) (ended func())

	mu    sync.Mutex
	calls map[K]*call[V]
}

// call is work that runs.
type call[V any] struct {
	starter context.Context // nil without Group.Waits
	cancel  context.CancelFunc
	join    func(ctx context.Context) // nil without Group.Share
	waiters int                       // guarded by Group.mu

	// done is closed when value and err are final.
	done  chan struct{}
	value V
	err   error
}

// Do returns the result of work. If work for the same key is running already, Do waits for its
// result and does not call work. joined is then true.
//
// Work runs on a context with the values of the caller that started it, but without its end. It
// continues while any caller waits. A caller whose own context ends returns at once.
//
// A failure belongs to the caller that started the work. Each caller that joined then calls its own
// work, on its own context. Only an error that SharedError accepts is returned to all waiting
// callers, because many waiters are no reason to ask for the same thing many times. A failure is
// not remembered. A panic of work is returned as a *panics.Error.
func (g *Group[K, V]) Do(
	ctx context.Context, key K, work func(ctx context.Context) (V, error),
) (v V, joined bool, err error) {
	g.mu.Lock()
	c, joined := g.calls[key]
	if !joined {
		detached, cancel := context.WithCancel(context.WithoutCancel(ctx))
		c = &call[V]{cancel: cancel, done: make(chan struct{})}
		if g.Share != nil {
			detached, c.join = g.Share(detached)
		}
		if g.Waits != nil {
			c.starter = ctx
		}
		if g.calls == nil {
			g.calls = map[K]*call[V]{}
		}
		g.calls[key] = c
		go g.run(detached, key, c, work)
	}
	c.waiters++
	g.mu.Unlock()
	if joined && c.join != nil {
		c.join(ctx)
	}
	ended := func() {}
	if joined && g.Waits != nil {
		ended = g.Waits(ctx, c.starter)
	}

	select {
	case <-c.done:
		ended()
	case <-ctx.Done():
		ended()
		g.leave(key, c)
		return v, joined, ctx.Err()
	}
	if c.err != nil && joined && (g.SharedError == nil || !g.SharedError(c.err)) {
		v, err = work(ctx)
		return v, false, err
	}
	return c.value, joined, c.err
}

func (g *Group[K, V]) run(
	ctx context.Context, key K, c *call[V], work func(context.Context) (V, error),
) {
	defer c.cancel()
	c.err = panics.Contained(func() (err error) {
		c.value, err = work(ctx)
		return err
	})()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget(key, c)
	close(c.done)
}

// leave stops waiting. Unless KeepRunning is set, work without waiters is cancelled and can no
// longer be joined.
func (g *Group[K, V]) leave(key K, c *call[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.waiters--; c.waiters == 0 && !g.KeepRunning {
		g.forget(key, c)
		c.cancel()
	}
}

// forget removes a call from the table. g.mu is held.
func (g *Group[K, V]) forget(key K, c *call[V]) {
	if g.calls[key] == c {
		delete(g.calls, key)
	}
}
