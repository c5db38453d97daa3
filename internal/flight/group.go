package flight

import (
	"context"
	"sync"

	"larder/internal/panics"
)

// Group shares work by key. The zero value works; it must not be copied.
type Group[K comparable, V any] struct {
	// Everyones tells whether an error would have been that of all who wait: one
	// of what is shared, and not of the caller who began. Nil: none is. Set it
	// before first use.
	Everyones func(error) bool

	// KeepRunning has work run to its end, joinable, after its last caller has left. Without it
	// such work is cancelled. Set it before first use.
	KeepRunning bool

	mu    sync.Mutex
	calls map[K]*call[V]
}

// call is work that goes on.
type call[V any] struct {
	cancel  context.CancelFunc
	waiters int // guarded by Group.mu

	// done is closed when value and err are final.
	done  chan struct{}
	value V
	err   error
}

// Do returns what work returns. Where another caller has begun it for the same
// key and it goes on, Do waits for that: then joined is true, and work was not
// called.
//
// The work is detached from the caller that began it: it goes on as long as
// anybody waits, on a context with that caller's values and without its end. A
// caller whose own context ends leaves at once. A failure is the beginner's
// alone, and whoever joined then does the work itself, on its own context; unless
// it is everyone's: then all who wait have failed, because many waiters are no
// reason to ask for the same thing many times. Nothing remembers a failure. A panic
// of work is a panics.Error.
func (g *Group[K, V]) Do(
	ctx context.Context, key K, work func(ctx context.Context) (V, error),
) (v V, joined bool, err error) {
	g.mu.Lock()
	c, joined := g.calls[key]
	if !joined {
		detached, cancel := context.WithCancel(context.WithoutCancel(ctx))
		c = &call[V]{cancel: cancel, done: make(chan struct{})}
		if g.calls == nil {
			g.calls = map[K]*call[V]{}
		}
		g.calls[key] = c
		go g.run(detached, key, c, work)
	}
	c.waiters++
	g.mu.Unlock()

	select {
	case <-c.done:
	case <-ctx.Done():
		g.leave(key, c)
		return v, joined, ctx.Err()
	}
	if c.err != nil && joined && (g.Everyones == nil || !g.Everyones(c.err)) {
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

// leave stops waiting. Work that nobody waits for ends, and can be joined no
// more.
func (g *Group[K, V]) leave(key K, c *call[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.waiters--; c.waiters == 0 && !g.KeepRunning {
		g.forget(key, c)
		c.cancel()
	}
}

// forget takes a call out of the table. g.mu is held.
func (g *Group[K, V]) forget(key K, c *call[V]) {
	if g.calls[key] == c {
		delete(g.calls, key)
	}
}
