package admission

import (
	"time"

	"larder/internal/inbound"
)

// grant lets in whoever may go now. It is called after every change of what is held, of who waits, and of limits: one tenant's gain, too, may be what
// another has waited for, whose turn it was not while a large request of that tenant gathered bytes.
func (a *Admission) grant() {
	for {
		first := large
		if a.places == 1 {
			// The lanes share the only place: who has waited longer goes first.
			if s, l := a.next(small), a.next(large); s != nil && l != nil && s.age < l.age {
				first = small
			}
		}
		if !a.letIn(first) && !a.letIn(small+large-first) {
			return
		}
	}
}

// letIn lets in whose turn it is in a lane, if there is room.
func (a *Admission) letIn(l lane) bool {
	w := a.next(l)
	if w == nil || !a.fits(l, w.bytes) {
		return false
	}
	a.queues[l][w.turn.kind].grant(w)
	a.waiting -= w.bytes
	a.give(w.turn, l, w.bytes)
	close(w.ready)
	return true
}

// next returns whose turn it is in a lane but for the bytes; nil for nobody. A Series request for which there is no place holds up no label request.
func (a *Admission) next(l lane) *waiter {
	w := a.first(l, SeriesRequest)
	if w != nil && !a.placeFree(l) {
		w = nil
	}
	if o := a.first(l, LabelRequest); w == nil || o != nil && o.age < w.age {
		w = o
	}
	return w
}

// first returns whose turn it is but for bytes and places.
func (a *Admission) first(l lane, kind Kind) *waiter {
	q := &a.queues[l][kind]
	if q.len == 0 {
		return nil
	}
	return q.next(a.mayGo)
}

// mayGo reports whether its tenant and its client let a waiter go now.
func (a *Admission) mayGo(w *waiter) bool {
	return a.withinTenant(w.turn, w.bytes) && a.withinClient(w.turn)
}

// roomFor reports whether t may have n bytes in a lane, and its place, while nobody waits there.
func (a *Admission) roomFor(t *Turn, l lane, n int64) bool {
	return (t.kind != SeriesRequest || a.placeFree(l)) &&
		a.withinTenant(t, n) && a.withinClient(t) && a.fits(l, n)
}

// placeFree reports whether a Series request finds a place in a lane.
func (a *Admission) placeFree(l lane) bool {
	switch {
	case a.places == 0:
		return true
	case a.running[small]+a.running[large] >= a.places:
		return false
	case l == large:
		return a.running[large] < a.largePlaces
	}
	if a.running[small] < a.smallPlaces || a.running[large] >= a.largePlaces {
		return true
	}
	w := a.first(large, SeriesRequest)
	return w == nil || !a.fits(large, w.bytes) // who lacks bytes keeps nobody from a place
}

// placeOfTenant reports whether the limits of its tenant let a Series request have a place.
func (a *Admission) placeOfTenant(t *Turn) bool {
	most := a.limits.of(t.tenant).MaxConcurrent
	return most <= 0 || a.tenants[t.tenant].places < most
}

// crowds reports whether a client address has all the places that it may have beside others: three
// quarters of them for one share. A client chooses the names of its tenants, and not its address.
func (a *Admission) crowds(c inbound.Client) bool {
	part := max(1, a.places-max(1, a.places/4)) * max(1, c.Shares)
	return a.places > 0 && a.clients[c] >= part
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
func (a *Admission) withinClient(t *Turn) bool {
	if t.kind != SeriesRequest || t.placed || !a.crowds(t.client) {
		return true
	}
	other := a.latest[0]
	if other.client == t.client {
		other = a.latest[1]
	}
	return time.Since(other.at) > besideOthers
}

// visited notes that a client has come.
func (a *Admission) visited(c inbound.Client) {
	if a.latest[0].client != c {
		a.latest[1] = a.latest[0]
	}
	a.latest[0] = visit{c, time.Now()}
}

// fits reports whether n more bytes are free in a lane.
func (a *Admission) fits(l lane, n int64) bool {
	free := a.total - a.held[small] - a.held[large]
	if l == large {
		return n <= a.total-a.part-a.held[large] && n <= free
	}
	if n > free {
		return false
	}
	// Bytes gather for a large request that waits, for whatever it waits: if small ones took them while it lacks a place, and its place while it lacks
	// bytes, it might wait for ever.
	return n <= a.part-a.held[small] || a.first(large, SeriesRequest) == nil && a.first(large, LabelRequest) == nil
}

// withinTenant reports whether the limits of its tenant let t have n more bytes, and a place if it needs one and has none.
func (a *Admission) withinTenant(t *Turn, n int64) bool {
	if a.limits == nil || t.kind == background {
		return true
	}
	lim, use := a.limits.of(t.tenant), a.tenants[t.tenant]
	return n <= lim.requestBytes(a.total, a.smallRequest)-use.bytes && (t.placed || t.kind != SeriesRequest || lim.MaxConcurrent <= 0 || use.places < lim.MaxConcurrent)
}

// most is how much a request of t may hold.
func (a *Admission) most(t *Turn) int64 {
	lim := a.limits.of(t.tenant)
	return max(a.smallRequest, min(a.total-a.part, lim.requestBytes(a.total, a.smallRequest)))
}

// enqueue is called with the lock held, as all that follow.
func (a *Admission) enqueue(t *Turn, l lane, n int64) *waiter {
	a.ages++
	lim := a.limits.of(t.tenant)
	w := &waiter{
		tenant: t.tenant, weight: lim.weight(), cost: 1, age: a.ages,
		turn: t, bytes: n, ready: make(chan struct{}),
	}
	if l == large {
		w.cost = float64(n)
	}
	a.queues[l][t.kind].push(w)
	a.waiting += n
	return w
}

func (a *Admission) dequeue(w *waiter, l lane) {
	a.queues[l][w.turn.kind].remove(w)
	a.waiting -= w.bytes
}

// give is called with the lock held, when there is room.
func (a *Admission) give(t *Turn, l lane, n int64) {
	t.lane, t.planned = l, 0
	t.bytes[l] = n // it has held nothing
	a.held[l] += n
	places := 0
	if t.kind == SeriesRequest {
		t.placed, places = true, 1
		a.running[l]++
	}
	a.use(t, places, n)
}

// use notes what a tenant's requests have. Tenants of which no request runs are forgotten.
func (a *Admission) use(t *Turn, places int, bytes int64) {
	if t.kind == background {
		return
	}
	if places != 0 {
		if a.clients[t.client] += places; a.clients[t.client] == 0 {
			delete(a.clients, t.client)
		}
	}
	u := a.tenants[t.tenant]
	u.places += places
	u.bytes += bytes
	if u == (tenantUse{}) {
		delete(a.tenants, t.tenant)
		return
	}
	a.tenants[t.tenant] = u
}
