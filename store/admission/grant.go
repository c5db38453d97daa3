package admission

import (
	"time"

	"larder/internal/inbound"
)

// grant lets in whoever may go now. It is called after every change of what is held, of who waits, and of limits: one tenant's gain, too, may be what
// another has waited for, whose turn it was not while a large request of that tenant gathered bytes.
func (c *Controller) grant() {
	for {
		first := large
		if c.places == 1 {
			// The lanes share the only place: who has waited longer goes first.
			if s, l := c.next(small), c.next(large); s != nil && l != nil && s.arrival < l.arrival {
				first = small
			}
		}
		if !c.grantNext(first) && !c.grantNext(small+large-first) {
			return
		}
	}
}

// grantNext lets in whose turn it is in a lane, if there is room.
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

// next returns whose turn it is in a lane but for the bytes; nil for nobody. A Series request for which there is no place holds up no label request.
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

// first returns whose turn it is but for bytes and places.
func (c *Controller) first(l lane, kind Kind) *waiter {
	q := &c.queues[l][kind]
	if q.len == 0 {
		return nil
	}
	return q.next(c.withinLimits)
}

// withinLimits reports whether its tenant and its client let a waiter go now.
func (c *Controller) withinLimits(w *waiter) bool {
	return c.withinTenant(w.turn, w.bytes) && c.withinClient(w.turn)
}

// fitsNow reports whether t may have n bytes in a lane, and its place, while nobody waits there.
func (c *Controller) fitsNow(t *Turn, l lane, n int64) bool {
	return (t.kind != SeriesRequest || c.placeFree(l)) &&
		c.withinTenant(t, n) && c.withinClient(t) && c.fits(l, n)
}

// placeFree reports whether a Series request finds a place in a lane.
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
	return w == nil || !c.fits(large, w.bytes) // who lacks bytes keeps nobody from a place
}

// placeOfTenant reports whether the limits of its tenant let a Series request have a place.
func (c *Controller) placeOfTenant(t *Turn) bool {
	most := c.limits.of(t.tenant).MaxConcurrent
	return most <= 0 || c.tenants[t.tenant].places < most
}

// hasFullShare reports whether a client address has all the places that it may have beside others: three
// quarters of them for one share. A client chooses the names of its tenants, and not its address.
func (c *Controller) hasFullShare(client inbound.Client) bool {
	part := max(1, c.places-max(1, c.places/4)) * max(1, client.Shares)
	return c.places > 0 && c.clients[client] >= part
}

// besideOthers is how long a client leaves places free for another that has come.
const besideOthers = 10 * time.Minute

// visit is a client that has come to the gate.
type visit struct {
	client inbound.Client
	at     time.Time
}

// withinClient reports whether the client of t may have a place. A client that is alone may have
// all: it is alone when no other has come for besideOthers.
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

// visited notes that a client has come.
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
	// Bytes gather for a large request that waits, for whatever it waits: if small ones took them while it lacks a place, and its place while it lacks
	// bytes, it might wait for ever.
	return n <= c.smallBytes-c.reserved[small] || c.first(large, SeriesRequest) == nil && c.first(large, LabelRequest) == nil
}

// withinTenant reports whether the limits of its tenant let t have n more bytes, and a place if it needs one and has none.
func (c *Controller) withinTenant(t *Turn, n int64) bool {
	if c.limits == nil || t.kind == background {
		return true
	}
	lim, use := c.limits.of(t.tenant), c.tenants[t.tenant]
	return n <= lim.requestBytes(c.total, c.smallRequest)-use.bytes && (t.placed || t.kind != SeriesRequest || lim.MaxConcurrent <= 0 || use.places < lim.MaxConcurrent)
}

// most is how much a request of t may hold.
func (c *Controller) maxBytes(t *Turn) int64 {
	lim := c.limits.of(t.tenant)
	return max(c.smallRequest, min(c.total-c.smallBytes, lim.requestBytes(c.total, c.smallRequest)))
}

// enqueue is called with the lock held, as all that follow.
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

func (c *Controller) dequeue(w *waiter, l lane) {
	c.queues[l][w.turn.kind].remove(w)
	c.waiting -= w.bytes
}

// give is called with the lock held, when there is room.
func (c *Controller) reserve(t *Turn, l lane, n int64) {
	t.lane, t.planned = l, 0
	t.bytes[l] = n // it has held nothing
	c.reserved[l] += n
	places := 0
	if t.kind == SeriesRequest {
		t.placed, places = true, 1
		c.running[l]++
	}
	c.charge(t, places, n)
}

// use notes what a tenant's requests have. Tenants of which no request runs are forgotten.
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
