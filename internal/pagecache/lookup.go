package pagecache

import (
	"context"
	"runtime/debug"

	"larder/internal/bytecache"
)

// lookup is one question to the remote tier of the cache, for pages of one
// object that any number of Fetches wait for. It is detached from the one that
// asked first. How long it may take is the cache's to bound.
type lookup struct {
	cancel context.CancelFunc
	keys   []bytecache.Key
	// done is closed when values are complete. Nobody reads them before.
	done   chan struct{}
	values [][]byte

	waiters int // guarded by Reader.mu
}

// asked is a page that a Fetch waits for: number i of a look-up.
type asked struct {
	page *page
	l    *lookup
	i    int
	own  bool
}

// lookUp asks the remote tier for the pages of list that have no bytes, all at
// once, or waits for those who ask already. Pages on their way from the bucket
// are not asked for: claim joins them. What is not found stays without bytes,
// whatever the reason; an error is the caller's end, or the reader's.
func (r *Reader) lookUp(ctx context.Context, obj Object, list []page, misses int, t *tally) error {
	if obj.Block.IsZero() {
		return nil
	}
	pages := make([]asked, 0, misses)
	lookups, err := r.ask(ctx, obj, list, &pages)
	if err != nil {
		return err
	}
	for n, l := range lookups {
		select {
		case <-l.done:
		case <-ctx.Done():
			r.leaveLookups(lookups[n:])
			return &ReadError{Object: obj.Name, Off: list[0].no << r.shift, Err: ctx.Err()}
		}
	}
	for _, a := range pages {
		if !a.own {
			t.joined++
		}
		b := a.l.values[a.i]
		if b == nil || !r.fits(obj, a.page.no, b) {
			continue
		}
		a.page.b = b
		if a.own {
			t.remoteHits++
			t.remoteBytes += int64(len(b))
		} else {
			t.coalesced++
			t.coalescedBytes += int64(len(b))
		}
	}
	return nil
}

// ask joins or starts look-ups and returns those that are to be waited for.
func (r *Reader) ask(ctx context.Context, obj Object, list []page, pages *[]asked) ([]*lookup, error) {
	var lookups []*lookup
	own := &lookup{done: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	for i := range list {
		p := &list[i]
		if p.b != nil {
			continue
		}
		key, ok := obj.cacheKey(p.no, r.shift)
		if !ok || r.table[key.Local] != nil {
			continue
		}
		if l := r.lookups[key.Local]; l != nil {
			*pages = append(*pages, asked{page: p, l: l, i: l.index(key.Local)})
			if n := len(lookups); n == 0 || lookups[n-1] != l {
				// A look-up whose pages lie among those of others is waited for, and counted, more than once.
				l.waiters++
				lookups = append(lookups, l)
			}
			continue
		}
		*pages = append(*pages, asked{page: p, l: own, i: len(own.keys), own: true})
		own.keys = append(own.keys, key)
	}
	if len(own.keys) == 0 {
		return lookups, nil
	}
	detached, cancel := context.WithCancel(context.WithoutCancel(ctx))
	own.cancel = cancel
	own.values = make([][]byte, len(own.keys))
	own.waiters = 1
	for _, key := range own.keys {
		r.lookups[key.Local] = own
	}
	r.running.Add(1)
	go r.runLookup(detached, own)
	return append(lookups, own), nil
}

// index returns the place of a key, which the look-up has: its keys ascend.
func (l *lookup) index(local uint64) int {
	lo, hi := 0, len(l.keys)
	for lo < hi {
		if mid := (lo + hi) / 2; l.keys[mid].Local < local {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func (r *Reader) runLookup(ctx context.Context, l *lookup) {
	defer r.running.Done()
	defer l.cancel()
	defer func() {
		if v := recover(); v != nil {
			r.opts.Logger.Error("panic while asking the cache", "panic", v, "stack", string(debug.Stack()))
			clear(l.values)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.dropLookup(l)
		// What was found may be in memory now: whoever missed it there before looks again.
		r.published.Add(1)
		close(l.done)
	}()
	r.cache.Fetch(ctx, l.keys, l.values)
}

// leaveLookups stops waiting. One that nobody waits for is given up and can no
// longer be joined.
func (r *Reader) leaveLookups(lookups []*lookup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range lookups {
		if l.waiters--; l.waiters == 0 {
			r.dropLookup(l)
			l.cancel()
		}
	}
}

// dropLookup takes a look-up out of the table. r.mu is held.
func (r *Reader) dropLookup(l *lookup) {
	for _, key := range l.keys {
		if r.lookups[key.Local] == l {
			delete(r.lookups, key.Local)
		}
	}
}
