package pagecache

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// flight is one read of the bucket, queued or running.
type flight struct {
	obj      Object
	read     read
	off, end int64 // its bytes
	shared   bool  // its pages are in the table
	rereads  int   // reads after a body that was too long; of the reading goroutine

	// ctx is cancelled when the flight is over. It carries the values of the
	// request that started it, not its deadline.
	ctx    context.Context
	cancel context.CancelFunc

	// pages by number - read.first. The reading goroutine writes entry i before
	// it raises ready above i; nobody reads it before. It replaces the slice, under
	// Reader.mu, where all that was published proved wrong: whoever waits reads
	// waiter.pages.
	pages [][]byte

	// Guarded by Reader.mu.
	waiters []*waiter // that still wait
	ready   int       // pages published
	over    bool      // ended, failed or abandoned: nothing is published any more
}

// waiter is one Fetch waiting for one flight.
type waiter struct {
	f    *flight
	want int           // released when ready > want
	done chan struct{} // closed when released
	// Written before done is closed: the flight's pages, of which want is the last that
	// may be read, or why it ended before.
	pages [][]byte
	err   error
}

// claims is what one Fetch waits for.
type claims struct {
	obj   Object
	slots []claim
	waits []*waiter
	own   []*flight // to be started
	token bool      // one count of Reader.running is held until they are
}

// claim is one missing page.
type claim struct {
	at   int // in the Fetch's list
	wait int // index of its waiter, -1 when it needs none any more
	f    *flight
}

// claim joins every missing page to the flight that reads it, or claims it,
// and registers the flights planned for the claimed pages, all under one lock.
// Pages published since epoch are taken from the cache, or from the flights that
// the search knows. Its look-ups are released.
func (r *Reader) claim(
	ctx context.Context, obj Object, list []page, misses int, epoch uint64, q search, t *tally,
) (*claims, error) {
	c := &claims{obj: obj, slots: make([]claim, 0, misses)}
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
				if b, ok := r.lookup(obj, no); ok {
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
		c.slots = append(c.slots, s)
	}
	r.registerLocked(ctx, c, g, need, true, t)
	r.waitLocked(c, list)
	return c, nil
}

// claimAlone claims every page that has no bytes, for flights that cannot be
// joined.
func (r *Reader) claimAlone(
	ctx context.Context, obj Object, list []page, t *tally,
) (*claims, error) {
	c := &claims{obj: obj}
	var need []int64
	for i := range list {
		if list[i].b == nil {
			c.slots = append(c.slots, claim{at: i, wait: -1})
			need = append(need, list[i].no)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	r.registerLocked(ctx, c, r.geometry(obj), need, false, t)
	r.waitLocked(c, list)
	return c, nil
}

// registerLocked plans flights for the pages needed and gives them to c.
func (r *Reader) registerLocked(
	ctx context.Context, c *claims, g geometry, need []int64, shared bool, t *tally,
) {
	reads := plan(g, need, r.opts.ReadAmplification, r.opts.MaxRead)
	if len(reads) == 0 {
		return
	}
	detached := context.WithoutCancel(ctx)
	c.own = make([]*flight, 0, len(reads))
	for _, rd := range reads {
		f := &flight{
			obj:    c.obj,
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
				// A page in a gap may be on its way in another flight: it stays there.
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

// waitLocked finds the flight of every claimed page and enlists with each.
func (r *Reader) waitLocked(c *claims, list []page) {
	next := 0 // own flights ascend as the claimed pages do
	for i := range c.slots {
		s := &c.slots[i]
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
		// The pages of one flight are neighbours but for flights in its gaps:
		// the one looked for is almost always the last.
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

// start lets the account spend what was claimed, and then starts the flights.
// They are started even if it refuses, because others may have joined them by
// now; those that nobody else waits for are gone by then.
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

// launch runs the own flights on a bounded number of goroutines, in order.
func (r *Reader) launch(c *claims) {
	if !c.token {
		return
	}
	defer r.running.Done()
	next := new(atomic.Int64)
	own := c.own
	for range min(len(own), r.opts.FetchReads) {
		r.running.Add(1)
		go func() {
			defer r.running.Done()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(own) {
					return
				}
				r.fly(own[i])
			}
		}()
	}
}

// await waits for all flights and takes their pages into list. The first failure
// of a flight ends it: there is no answer without its pages.
func (r *Reader) await(ctx context.Context, c *claims, list []page) error {
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
	for _, s := range c.slots {
		if s.wait >= 0 {
			list[s.at].b = c.waits[s.wait].pages[int(list[s.at].no-s.f.read.first)]
		}
	}
	return nil
}

// leave stops waiting; a flight that is left by its last waiter is abandoned.
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

// publish makes the first n pages of a flight available and releases whom they
// suffice. It reports whether anybody waits for the rest.
func (r *Reader) publish(f *flight, from, n int) bool {
	for i := from; i < n; i++ {
		if key, ok := f.obj.cacheKey(f.read.first+int64(i), r.shift); ok {
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

// endLocked ends a flight, if it is not over: it can be joined no more, and
// whoever still waits is released with err.
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
		r.metrics.abandoned.Inc()
	} else if err != nil {
		r.metrics.readFailures.Inc()
	}
	for _, w := range f.waiters {
		w.err = err
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
