package pagecache

import (
	"cmp"
	"context"
	"slices"

	"go.opentelemetry.io/otel/trace"

	"larder/internal/bytecache"
)

// lookup is one question to the remote tier of the cache for pages of one object. Any number of
// Fetches wait for it. It is detached from the Fetch that started it. The cache bounds its
// duration.
type lookup struct {
	obj    Object
	keys   []bytecache.Key // ascending by Local
	cancel context.CancelFunc
	// done is closed when values are complete. No goroutine reads them before.
	done   chan struct{}
	values [][]byte
	found  bytecache.Found // complete when done is closed

	// Guarded by Reader.mu.
	over    bool // done is closed
	waiters int  // Fetches that have not claimed the missing pages yet
	// flights has the flight of every page that one of the waiters has claimed. It may be over
	// before another waiter comes to join it. nil before the first claim.
	flights []*flight
}

// search is what a Fetch has learned about the pages that are not in memory. The zero search is
// empty.
type search struct {
	asked   []asked
	lookups []*lookup // each is released once for each entry
}

// asked is a page that is being looked up or read.
type asked struct {
	at  int     // index in the Fetch's list
	l   *lookup // nil if f reads the page
	i   int     // index in l
	own bool
	f   *flight
}

// searchRemote asks the remote tier for all pages of list without bytes, and waits for the look-ups
// of others. It does not ask for pages on their way from the bucket, which claim joins. A page that
// is not found stays without bytes. The error is that of ctx, or ErrClosed. Without an error, the
// caller passes the search to claim, which releases its look-ups.
func (r *Reader) searchRemote(
	ctx context.Context, obj Object, list []page, misses int, t *tally,
) (search, error) {
	q := search{asked: make([]asked, 0, misses)}
	if err := r.ask(ctx, obj, list, &q); err != nil {
		return search{}, err
	}
	if len(q.lookups) > 0 {
		if _, span, ok := r.startSpan(ctx, "cache_getmulti", obj.Name, list[0].no<<r.shift,
			int64(len(q.asked))<<r.shift, trace.SpanKindInternal); ok {
			defer span.End()
		}
	}
	for _, l := range q.lookups {
		select {
		case <-l.done:
		case <-ctx.Done():
			r.leaveLookups(q.lookups)
			return search{}, &ReadError{
				Object: obj.Name,
				Off:    list[0].no << r.shift,
				Err:    ctx.Err(),
			}
		}
	}
	var own *lookup
	var pages, bytes int64 // that own found
	for _, a := range q.asked {
		if a.l == nil {
			continue
		}
		if a.own {
			own = a.l
		} else {
			t.joined++
		}
		b := a.l.values[a.i]
		if b == nil {
			continue
		}
		list[a.at].b = b
		if a.own {
			pages++
			bytes += int64(len(b))
		} else {
			t.coalesced++
			t.coalescedBytes += int64(len(b))
		}
	}
	if own != nil {
		t.foundBy(own.found, pages, bytes)
	}
	return q, nil
}

// ask joins running look-ups, and starts one for the other pages.
func (r *Reader) ask(ctx context.Context, obj Object, list []page, q *search) error {
	own := &lookup{obj: obj, done: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	for i := range list {
		if list[i].b != nil {
			continue
		}
		key, ok := obj.cacheKey(list[i].no, r.shift)
		if !ok {
			continue
		}
		a := asked{at: i}
		if a.f = r.table[key.Local]; a.f != nil {
			q.asked = append(q.asked, a)
			continue
		}
		if a.l = r.lookups[key.Local]; a.l != nil {
			a.i = a.l.index(key.Local)
			if n := len(q.lookups); n == 0 || q.lookups[n-1] != a.l {
				// A look-up whose pages lie between those of others is listed and counted more than
				// once.
				a.l.waiters++
				q.lookups = append(q.lookups, a.l)
			}
		} else {
			a.l, a.i, a.own = own, len(own.keys), true
			own.keys = append(own.keys, key)
		}
		q.asked = append(q.asked, a)
	}
	if len(own.keys) == 0 {
		return nil
	}
	detached, cancel := context.WithCancel(context.WithoutCancel(ctx))
	own.cancel = cancel
	own.values = make([][]byte, len(own.keys))
	own.waiters = 1
	for _, key := range own.keys {
		r.lookups[key.Local] = own
	}
	q.lookups = append(q.lookups, own)
	r.running.Add(1)
	go r.runLookup(detached, own)
	return nil
}

// index returns the index of a key of the look-up.
func (l *lookup) index(local uint64) int {
	i, _ := slices.BinarySearchFunc(
		l.keys, local,
		func(k bytecache.Key, local uint64) int { return cmp.Compare(k.Local, local) },
	)
	return i
}

func (r *Reader) runLookup(ctx context.Context, l *lookup) {
	defer r.running.Done()
	defer l.cancel()
	defer func() {
		if v := recover(); v != nil {
			_ = r.panics.Caught(v, "object", l.obj.Name) // its waiters find nothing
			clear(l.values)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		l.over = true
		for i, key := range l.keys {
			if (l.values[i] != nil || l.flights != nil && l.flights[i] != nil) &&
				r.lookups[key.Local] == l {
				delete(r.lookups, key.Local)
			}
		}
		close(l.done)
	}()
	l.found = r.cache.Fetch(ctx, l.keys, l.values)
	for i, key := range l.keys {
		if b := l.values[i]; b != nil && !r.fits(l.obj, pageNumber(key.Local), b) {
			l.values[i] = nil
		}
	}
}

// leaveLookups stops waiting.
func (r *Reader) leaveLookups(lookups []*lookup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.releaseLocked(lookups)
}

// releaseLocked removes a waiter from each look-up. A look-up without waiters is cancelled and can
// no longer be joined.
func (r *Reader) releaseLocked(lookups []*lookup) {
	for _, l := range lookups {
		if l.waiters--; l.waiters > 0 {
			continue
		}
		for _, key := range l.keys {
			if r.lookups[key.Local] == l {
				delete(r.lookups, key.Local)
			}
		}
		l.cancel()
	}
}

// claimedLocked tells the waiters of a page's look-up which flight reads it now. If the look-up is
// over, later requests join the flight instead.
func (r *Reader) claimedLocked(key uint64, f *flight) {
	l := r.lookups[key]
	if l == nil {
		return
	}
	if l.flights == nil {
		l.flights = make([]*flight, len(l.keys))
	}
	l.flights[l.index(key)] = f
	if l.over {
		delete(r.lookups, key)
	}
}

// published returns the bytes of page i of the Fetch's list if a known flight has published them.
// Successive calls have ascending i. Reader.mu is held.
func (q *search) published(i int, no int64) []byte {
	for len(q.asked) > 0 && q.asked[0].at < i {
		q.asked = q.asked[1:]
	}
	if len(q.asked) == 0 || q.asked[0].at != i {
		return nil
	}
	a := &q.asked[0]
	f := a.f
	if f == nil && a.l.flights != nil {
		f = a.l.flights[a.i]
	}
	if f == nil {
		return nil
	}
	if at := int(no - f.read.first); at < f.ready {
		return f.pages[at]
	}
	return nil
}
