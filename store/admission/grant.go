package admission

import (
	"time"

	"larder/internal/inbound"
)

// grant admits every waiting request that may run now. It must be called after each change of
// reservations, queues and limits. A change of one tenant can admit a request of another, because a
// large request that gathers bytes blocks the requests behind it.
//
// LOCKING: the caller of this and all other functions in this file holds c.mu.
func (c *Controller) grant() {
	for {
		first := large
		if c.places == 1 {
			// The lanes share the only place: the older request goes first.
			if s, l := c.next(small), c.next(large); s != nil && l != nil && s.arrival < l.arrival {
				first = small
			}
		}
		if !c.grantNext(first) && !c.grantNext(small+large-first) {
			return
		}
	}
}

// grantNext admits the next request of a lane if it fits.
func (c *Controller) grantNext(l lane) bool {
	w := c.next(l)
	if w == nil || !c.fits(l, w.bytes) {
		return false
	}
	c.queues[l][w.turn.kind].grant(w)
	c.waiting -= w.bytes
	c.reserve(w.turn, l, w.bytes)
	close(w.ready)
	return true
}

// next returns the next request of a lane that lacks nothing but bytes; nil if there is none. A
// Series request that lacks a place does not block label requests.
func (c *Controller) next(l lane) *waiter {
	w := c.first(l, SeriesRequest)
	if w != nil && !c.placeFree(l) {
		w = nil
	}
	if o := c.first(l, LabelRequest); w == nil || o != nil && o.arrival < w.arrival {
		w = o
	}
	return w
}

// first returns the next request of one kind and lane that its tenant and client permit, whether or
// not places and bytes are free.
func (c *Controller) first(l lane, kind Kind) *waiter {
	q := &c.queues[l][kind]
	if q.len == 0 {
		return nil
	}
	return q.next(func(w *waiter) bool { return c.withinTenant(w.turn, w.bytes) },
		func(w *waiter) bool { return !c.withinClient(w.turn) })
}

// fitsNow reports whether n bytes in a lane, and a place if t needs one, are free for t.
func (c *Controller) fitsNow(t *Turn, l lane, n int64) bool {
	return (t.kind != SeriesRequest || c.placeFree(l)) &&
		c.withinTenant(t, n) && c.withinClient(t) && c.fits(l, n)
}

// placeFree reports whether a place is free for a Series request of a lane.
func (c *Controller) placeFree(l lane) bool {
	switch {
	case c.places == 0:
		return true
	case c.running[small]+c.running[large] >= c.places:
		return false
	case l == large:
		return c.running[large] < c.largePlaces
	}
	if c.running[small] < c.smallPlaces || c.running[large] >= c.largePlaces {
		return true
	}
	w := c.first(large, SeriesRequest)
	return w == nil || !c.fits(large, w.bytes) // a request that lacks bytes blocks no place
}

// placeOfTenant reports whether the limits of its tenant permit a Series request one more place.
func (c *Controller) placeOfTenant(t *Turn) bool {
	limit := c.limits.of(t.tenant).MaxConcurrent
	return limit <= 0 || c.tenants[t.tenant].places < limit
}

// fullShare returns how many places a client address may hold beside others: all but a quarter of
// the places, times its shares. It goes by address because a client chooses its tenant, but not its
// address.
func (c *Controller) fullShare(client inbound.Client) int {
	return max(1, c.places-max(1, c.places/4)) * max(1, client.Shares)
}

// hasFullShare reports whether a client address holds as many places as it may beside others.
func (c *Controller) hasFullShare(client inbound.Client) bool {
	return c.places > 0 && c.clients[client] >= c.fullShare(client)
}

// besideOthers is how long a client leaves places free for another one that has come.
const besideOthers = 10 * time.Minute

// visit is the last Series request of a client.
type visit struct {
	client inbound.Client
	at     time.Time
}

// withinClient reports whether the client of t permits it to take a place, if it needs one. A
// client may use all places if no other client has come for besideOthers.
func (c *Controller) withinClient(t *Turn) bool {
	if t.kind != SeriesRequest || t.placed || !c.hasFullShare(t.client) {
		return true
	}
	other := c.latest[0]
	if other.client == t.client {
		other = c.latest[1]
	}
	return time.Since(other.at) > besideOthers
}

// visited notes that a Series request of a client has come.
func (c *Controller) visited(client inbound.Client) {
	if c.latest[0].client != client {
		c.latest[1] = c.latest[0]
	}
	c.latest[0] = visit{client, time.Now()}
}

// fits reports whether n more bytes are free in a lane.
func (c *Controller) fits(l lane, n int64) bool {
	free := c.total - c.reserved[small] - c.reserved[large]
	if l == large {
		return n <= c.total-c.smallBytes-c.reserved[large] && n <= free
	}
	if n > free {
		return false
	}
	// Bytes are kept for a large request whether it lacks bytes or a place. Otherwise small
	// requests could take the bytes while it lacks a place, and the place while it lacks bytes, for
	// ever.
	return n <= c.smallBytes-c.reserved[small] ||
		c.first(large, SeriesRequest) == nil && c.first(large, LabelRequest) == nil
}

// withinTenant reports whether the limits of its tenant permit t to reserve n more bytes, and to
// take a place if it needs one and has none.
func (c *Controller) withinTenant(t *Turn, n int64) bool {
	if c.limits == nil || t.kind == background {
		return true
	}
	lim, use := c.limits.of(t.tenant), c.tenants[t.tenant]
	if n > lim.requestBytes(c.total, c.smallRequest)-use.bytes {
		return false
	}
	return t.placed || t.kind != SeriesRequest || c.placeOfTenant(t)
}

// maxBytes returns how many bytes the request of t may reserve in an idle process.
func (c *Controller) maxBytes(t *Turn) int64 {
	lim := c.limits.of(t.tenant)
	return max(c.smallRequest, min(c.total-c.smallBytes, lim.requestBytes(c.total, c.smallRequest)))
}

// enqueue adds a request that needs n bytes to the queue of a lane.
func (c *Controller) enqueue(t *Turn, l lane, n int64) *waiter {
	c.arrivals++
	lim := c.limits.of(t.tenant)
	w := &waiter{
		tenant: t.tenant, weight: lim.weight(), cost: 1, arrival: c.arrivals,
		turn: t, bytes: n, ready: make(chan struct{}),
	}
	if l == large {
		w.cost = float64(n)
	}
	c.queues[l][t.kind].push(w)
	c.waiting += n
	return w
}

// dequeue removes a request that has not been granted from its queue.
func (c *Controller) dequeue(w *waiter, l lane) {
	c.queues[l][w.turn.kind].remove(w)
	c.waiting -= w.bytes
}

// reserve gives t a place in lane l, if it needs one, and n bytes. t holds nothing, and both are
// free.
func (c *Controller) reserve(t *Turn, l lane, n int64) {
	t.lane, t.planned = l, 0
	t.bytes[l] = n // it was 0
	c.reserved[l] += n
	places := 0
	if t.kind == SeriesRequest {
		t.placed, places = true, 1
		c.running[l]++
	}
	c.charge(t, places, n)
}

// charge adds to what the running requests of a tenant and client hold. It forgets tenants and
// clients that hold nothing.
func (c *Controller) charge(t *Turn, places int, bytes int64) {
	if t.kind == background {
		return
	}
	if places != 0 {
		if c.clients[t.client] += places; c.clients[t.client] == 0 {
			delete(c.clients, t.client)
		}
	}
	u := c.tenants[t.tenant]
	u.places += places
	u.bytes += bytes
	if u == (tenantUse{}) {
		delete(c.tenants, t.tenant)
		return
	}
	c.tenants[t.tenant] = u
}
