package pagecache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"

	"larder/internal/bucket/slots"
	"larder/internal/bytecache"
)

// flight is one read of the bucket, queued or running.
type flight struct {
	obj      Object
	queue    *slots.Read // of all requests that have waited for it
	read     read
	off, end int64 // its bytes
	shared   bool  // its pages are in the table
	// keep gets its pages instead of the cache, see Reader.Prefetch. nil: the cache gets them.
	keep    func(key bytecache.Key, value []byte)
	rereads int // reads after a body that was too long; of the reading goroutine

	// ctx is cancelled when the flight is over. It has the values of the request that started it,
	// but not its deadline.
	ctx    context.Context
	cancel context.CancelFunc

	// pages are indexed by number - read.first. The reading goroutine writes entry i before it
	// raises ready above i, and no other goroutine reads it before. If published pages prove wrong,
	// it replaces the slice under Reader.mu. A waiter therefore reads waiter.pages.
	pages [][]byte

	// Guarded by Reader.mu.
	waiters []*waiter         // waiting now
	ready   int               // pages published
	over    bool              // complete, failed or abandoned: nothing more is published
	span    trace.SpanContext // of its read; not valid if that is not traced
}

// waiter is one Fetch that waits for one flight.
type waiter struct {
	f    *flight
	want int           // released when ready > want
	done chan struct{} // closed when released
	// Written before done is closed: the flight's pages, which may be read up to want, or the error
	// that ended the flight before.
	pages [][]byte
	err   error
	at    time.Time // when it was released
}

// claims are the pages that one Fetch waits for.
type claims struct {
	obj   Object
	pages []claim
	waits []*waiter
	own   []*flight // to be started
	need  []int64   // the pages that own was planned for
	token bool      // counts in Reader.running until they are started
}

// claim is one missing page.
type claim struct {
	at   int // index in the Fetch's list
	wait int // index of its waiter, -1 if it has its bytes
	f    *flight
}

// claim joins every missing page to the flight that reads it, or claims it. It plans and registers
// flights for the claimed pages, all under one lock. Pages that were published since epoch come
// from the cache, or from the flights that q knows. claim releases the look-ups of q.
func (r *Reader) claim(
	ctx context.Context, obj Object, list []page, misses int, epoch uint64, q search, t *tally,
	acct *Account,
) (*claims, error) {
	c := &claims{obj: obj, pages: make([]claim, 0, misses)}
	need := make([]int64, 0, misses)
	g := r.geometry(obj)

	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.releaseLocked(q.lookups)
	if r.closed {
		return nil, ErrClosed
	}
	recheck := r.published.Load() != epoch
	for i := range list {
		if list[i].b != nil {
			continue
		}
		no := list[i].no
		s := claim{at: i, wait: -1}
		if key, ok := pageKey(obj.ID, no); ok {
			if s.f = r.table[key]; s.f != nil {
				t.coalesced++
				t.coalescedBytes += g.pageLen(no)
			} else if recheck {
				if b, ok := r.cached(obj, no); ok {
					list[i].b = b
					t.hits++
					t.hitBytes += int64(len(b))
					continue
				}
				if b := q.published(i, no); b != nil {
					list[i].b = b
					t.coalesced++
					t.coalescedBytes += int64(len(b))
					continue
				}
			}
		}
		if s.f == nil {
			need = append(need, no)
		}
		c.pages = append(c.pages, s)
	}
	r.registerLocked(ctx, c, g, plan(g, need, acct.model(r.opts.Costs)), true, t)
	c.need = need
	r.waitLocked(c, list)
	return c, nil
}

// claimAlone claims every page without bytes, for flights that cannot be joined.
func (r *Reader) claimAlone(
	ctx context.Context, obj Object, list []page, t *tally, acct *Account,
) (*claims, error) {
	c := &claims{obj: obj}
	var need []int64
	for i := range list {
		if list[i].b == nil {
			c.pages = append(c.pages, claim{at: i, wait: -1})
			need = append(need, list[i].no)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	g := r.geometry(obj)
	r.registerLocked(ctx, c, g, plan(g, need, acct.model(r.opts.Costs)), false, t)
	r.waitLocked(c, list)
	return c, nil
}

// registerLocked makes flights of the planned reads and gives them to c.
func (r *Reader) registerLocked(
	ctx context.Context, c *claims, g geometry, reads []read, shared bool, t *tally,
) {
	if len(reads) == 0 {
		return
	}
	detached := context.WithoutCancel(ctx)
	c.own = make([]*flight, 0, len(reads))
	for _, rd := range reads {
		f := &flight{
			obj:    c.obj,
			queue:  &slots.Read{},
			read:   rd,
			shared: shared,
			pages:  make([][]byte, rd.last-rd.first+1),
		}
		f.off, f.end = g.bounds(rd)
		f.ctx, f.cancel = context.WithCancel(detached)
		r.flights[f] = struct{}{}
		c.own = append(c.own, f)
		t.requests++
		t.fetched += int64(len(f.pages))
		t.fetchedBytes += f.end - f.off
		if shared {
			for no := rd.first; no <= rd.last; no++ {
				// A page in a gap may be in another flight already. It stays there.
				if key, ok := pageKey(c.obj.ID, no); ok && r.table[key] == nil {
					r.table[key] = f
					r.claimedLocked(key, f)
				}
			}
		}
	}
	r.running.Add(1)
	c.token = true
}

// waitLocked finds the flight of every claimed page and adds a waiter to each flight.
func (r *Reader) waitLocked(c *claims, list []page) {
	next := 0 // own flights ascend as the claimed pages do
	for i := range c.pages {
		s := &c.pages[i]
		no := list[s.at].no
		if s.f == nil {
			for c.own[next].read.last < no {
				next++
			}
			s.f = c.own[next]
		}
		at := int(no - s.f.read.first)
		if at < s.f.ready {
			list[s.at].b = s.f.pages[at]
			continue
		}
		// The pages of one flight are neighbours, except for flights in its gaps. The waiter is
		// almost always the last one.
		s.wait = len(c.waits) - 1
		for s.wait >= 0 && c.waits[s.wait].f != s.f {
			s.wait--
		}
		if s.wait < 0 {
			w := &waiter{f: s.f, done: make(chan struct{})}
			s.f.waiters = append(s.f.waiters, w)
			s.wait = len(c.waits)
			c.waits = append(c.waits, w)
		}
		c.waits[s.wait].want = at
	}
}

// join adds the reader of ctx to those by which the flights of the claims queue for bytes and
// slots.
func (c *claims) join(ctx context.Context) {
	for _, w := range c.waits {
		w.f.queue.Join(ctx)
	}
}

// start charges the claims to the account, and then starts the flights. If the account refuses, it
// leaves the flights first. They are started all the same, because other requests may have joined
// them: a flight without waiters is over by then.
func (r *Reader) start(c *claims, t *tally, acct *Account) error {
	defer r.launch(c)
	spent := false
	defer func() {
		if !spent {
			r.leave(c.waits)
		}
	}()
	if err := acct.spend(t.touchedBytes, t.fetchedBytes); err != nil {
		return fmt.Errorf("object %s: %w", c.obj.Name, err)
	}
	spent = true
	r.record(t, acct)
	return nil
}

// launch starts the own flights together. The bytes in flight and the slots bound them.
func (r *Reader) launch(c *claims) {
	if !c.token {
		return
	}
	defer r.running.Done()
	for _, f := range c.own {
		r.running.Go(func() { r.fly(f) })
	}
}

// await waits for all flights and stores their pages in list. It returns the first failure of a
// flight.
func (r *Reader) await(ctx context.Context, c *claims, list []page) error {
	defer r.endWaits(r.startWaits(ctx, c), c.waits)
	for i, w := range c.waits {
		select {
		case <-w.done:
		case <-ctx.Done():
			r.leave(c.waits[i:])
			return &ReadError{
				Object: c.obj.Name,
				Off:    w.f.off,
				Len:    w.f.end - w.f.off,
				Err:    ctx.Err(),
			}
		}
		if w.err != nil {
			r.leave(c.waits[i+1:])
			return w.err
		}
	}
	for _, s := range c.pages {
		if s.wait >= 0 {
			list[s.at].b = c.waits[s.wait].pages[int(list[s.at].no-s.f.read.first)]
		}
	}
	return nil
}

// leave stops waiting. A flight that its last waiter leaves is abandoned.
func (r *Reader) leave(waits []*waiter) {
	if len(waits) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range waits {
		f := w.f
		for i, other := range f.waiters {
			if other == w {
				f.waiters = append(f.waiters[:i], f.waiters[i+1:]...)
				break
			}
		}
		if len(f.waiters) == 0 {
			r.endLocked(f, errAbandoned)
		}
	}
}

// publish makes the pages from from to n available and releases the waiters that need no more. It
// reports whether there are other waiters.
func (r *Reader) publish(f *flight, from, n int) bool {
	for i := from; i < n; i++ {
		key, ok := f.obj.cacheKey(f.read.first+int64(i), r.shift)
		switch {
		case !ok:
		case f.keep != nil:
			f.keep(key, f.pages[i])
		default:
			r.cache.Set(key, f.pages[i])
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.over {
		return false
	}
	f.ready = n
	keep := f.waiters[:0]
	for _, w := range f.waiters {
		if w.want < n {
			w.pages = f.pages
			w.at = time.Now()
			close(w.done)
			continue
		}
		keep = append(keep, w)
	}
	clear(f.waiters[len(keep):])
	f.waiters = keep
	if n == len(f.pages) {
		r.endLocked(f, nil)
	} else if len(keep) == 0 {
		r.endLocked(f, errAbandoned)
	}
	return !f.over
}

// endLocked ends a flight unless it is over. It can no longer be joined, and its waiters are
// released with err.
func (r *Reader) endLocked(f *flight, err error) {
	if f.over {
		return
	}
	f.over = true
	delete(r.flights, f)
	if f.shared {
		for no := f.read.first; no <= f.read.last; no++ {
			if key, ok := pageKey(f.obj.ID, no); ok && r.table[key] == f {
				delete(r.table, key)
			}
		}
	}
	r.published.Add(1)
	if errors.Is(err, errAbandoned) {
		r.metricsOf(f).abandoned.Inc()
	} else if err != nil {
		r.metricsOf(f).readFailures.Inc()
	}
	for _, w := range f.waiters {
		w.err = err
		w.at = time.Now()
		close(w.done)
	}
	f.waiters = nil
	f.cancel()
}

func (r *Reader) end(f *flight, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endLocked(f, err)
}
