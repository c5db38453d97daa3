package pagecache

import (
	"cmp"
	"context"
	"slices"

	"larder/internal/bytecache"
)

// lookup is one question to the remote tier of the cache, for pages of one
// object that any number of Fetches wait for. It is detached from the one that
// asked first. How long it may take is the cache's to bound.
type lookup struct {
	obj    Object
	keys   []bytecache.Key // ascending by Local
	cancel context.CancelFunc
	// done is closed when values are complete. Nobody reads them before.
	done   chan struct{}
	values [][]byte

	// Guarded by Reader.mu.
	over    bool // done is closed
	waiters int  // Fetches that have not yet claimed what it did not find
	// flights has, for every page that one of the waiters began to read, that
	// flight: it may be over before another waiter comes to join it. nil until
	// there is one.
	flights []*flight
}

// search is what a Fetch learned of the pages that memory did not have. The
// zero search has learned nothing.
type search struct {
	asked   []asked
	lookups []*lookup // to be released, as often as they are listed
}

// asked is a page that is being looked up, or read.
type asked struct {
	at  int     // in the Fetch's list
	l   *lookup // nil: it is not looked up, because f reads it
	i   int     // in l
	own bool
	f   *flight
}

// lookUp asks the remote tier for the pages of list that have no bytes, all at
// once, or waits for those who ask already. Pages on their way from the bucket
// are not asked for: claim joins them. What is not found stays without bytes,
// whatever the reason; an error is the caller's end, or the reader's. Without
// one, claim takes the search, and releases its look-ups.
func (r *Reader) lookUp(
	ctx context.Context, obj Object, list []page, misses int, t *tally,
) (search, error) {
	q := search{asked: make([]asked, 0, misses)}
	if err := r.ask(ctx, obj, list, &q); err != nil {
		return search{}, err
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
	for _, a := range q.asked {
		if a.l == nil {
			continue
		}
		if !a.own {
			t.joined++
		}
		b := a.l.values[a.i]
		if b == nil {
			continue
		}
		list[a.at].b = b
		if a.own {
			t.remoteHits++
			t.remoteBytes += int64(len(b))
		} else {
			t.coalesced++
			t.coalescedBytes += int64(len(b))
		}
	}
	return q, nil
}

// ask joins or starts look-ups.
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
				// A look-up whose pages lie among those of others is listed, and counted, more than
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

// index returns the place of a key that the look-up has.
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
			_ = r.panics.Caught(v, "object", l.obj.Name) // to those who wait it is a miss
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
	r.cache.Fetch(ctx, l.keys, l.values)
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

// releaseLocked counts a waiter less. A look-up that has none can no longer be
// joined, and is given up if it goes on.
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

// claimedLocked tells those who look a page up which flight reads it now. Once
// it was not found, whoever comes later joins the flight.
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

// published returns the bytes of number i of the Fetch's list if a flight that
// it knows of has them. Calls ascend by i. r.mu is held.
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
