package admission

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/internal/inbound"
)

// Admission decides when requests may work, and how much they may hold: Series requests have one of a number of places, and every request has
// bytes of the request allowance. Both are had together, in one step, or not at all.
//
// # Small and large
//
// A request enters as a small one, with what a small request may hold, and finds out what it needs as it plans. What needs more becomes
// large: it keeps its place as one of the large ones if there is room for it at once; else it gives up its place, its bytes and its plan, waits for a large
// one's place with as many bytes as it needs, and plans again.
//
// Each lane has its part. Large requests never hold the places and the bytes that are left to small ones. Small requests use whatever is free as long as
// no large one could use it, and only their part while one waits for it. So neither starves: a small request finds its part as soon as small ones before it
// end, and a large one that waits gets what running requests give back. Within a lane turns are shared between tenants, see fairQueue.
//
// # Nothing waits in a circle
//
// INVARIANT: a request that waits here holds nothing of what is had here. One that has its turn never waits here again before it has given up all of it: what it
// wants besides it gets at once or not at all. So requests wait only for requests that run, and those only for the bucket, whose reads have
// deadlines and an account of their own, and for their client.
//
// INVARIANT: held[small] + held[large] <= total, held[large] <= total - part, and of the places likewise, at all times.
type Admission struct {
	gate                             GateOptions
	places, smallPlaces, largePlaces int // 0: no bound
	maxLargeWaiting                  int

	total, part, smallRequest int64

	limits *Limits

	mu      sync.Mutex // guards everything below, and the fields of turns; never held while waiting or calling out
	running [lanes]int
	held    [lanes]int64
	queues  [lanes][requestKinds]fairQueue
	ages    uint64
	waiting int64 // bytes that waiters wait for
	tenants map[string]tenantUse
	clients map[inbound.Client]int // places that each client address has
	latest  [2]visit               // the client that came last, and the last other one

	gateMetrics      gateMetrics
	allowanceMetrics allowanceMetrics
}

// lane is what a request counts as.
type lane int

const (
	small lane = iota
	large
	lanes
)

func (l lane) String() string { return [lanes]string{"small", "large"}[l] }

// Kind says what a request needs.
type Kind int

const (
	SeriesRequest Kind = iota // a place and bytes
	LabelRequest              // bytes
	requestKinds
	background // bytes that nobody waits for
)

// besideOthers is how long a client leaves places free for another that has come.
const besideOthers = 10 * time.Minute

// visit is a client that has come to the gate.
type visit struct {
	client inbound.Client
	at     time.Time
}

// tenantUse is what the running requests of a tenant have.
type tenantUse struct {
	places int
	bytes  int64
}

// NewAdmission makes an admission and registers its metrics. limits may be nil.
func NewAdmission(gate GateOptions, allowance AllowanceOptions, limits *Limits, reg prometheus.Registerer) *Admission {
	gate.defaults()
	allowance.defaults()
	a := &Admission{
		gate:  gate,
		total: allowance.Bytes, part: allowance.SmallLane, smallRequest: allowance.SmallRequest,
		limits:  limits,
		tenants: map[string]tenantUse{},
		clients: map[inbound.Client]int{},
	}
	a.places, a.smallPlaces, a.largePlaces = gate.places()
	a.maxLargeWaiting = max(gate.MaxWaiting-max(1, gate.MaxWaiting/4), 1)
	a.gateMetrics = newGateMetrics(a, reg)
	a.allowanceMetrics = newAllowanceMetrics(a, reg)
	return a
}

// Enter waits until a request may begin: as a small one, with a place if it is a Series request, and with the bytes of a small request. Its errors carry a
// gRPC status.
func (a *Admission) Enter(ctx context.Context, tenant string, kind Kind) (*Turn, error) {
	t := &Turn{a: a, tenant: a.limits.account(tenant), client: inbound.ClientOf(ctx), kind: kind}
	if kind == SeriesRequest {
		a.gateMetrics.total.Inc()
	}
	if err := t.acquire(ctx, small, a.smallRequest); err != nil {
		t.ObserveWait()
		return nil, err
	}
	return t, nil
}

// acquire waits for n bytes in a lane, and a place if the request needs one. The turn must hold nothing.
func (t *Turn) acquire(ctx context.Context, l lane, n int64) error {
	a := t.a
	if err := ctx.Err(); err != nil {
		return a.gaveUp(t, l, n, 0, err)
	}
	a.mu.Lock()
	if t.kind == SeriesRequest {
		a.visited(t.client)
	}
	// Limits may have changed since n was found to be within them. INVARIANT: what waits could go in an idle process: see SetLimits.
	if err := a.tooLarge(t, n); err != nil {
		a.mu.Unlock()
		return err
	}
	if a.queues[l][SeriesRequest].len+a.queues[l][LabelRequest].len == 0 && a.roomFor(t, l, n) {
		a.give(t, l, n)
		a.grant()
		a.mu.Unlock()
		a.allowanceMetrics.waited[l].Observe(0)
		return nil
	}
	start := time.Now()
	w := a.enqueue(t, l, n)
	a.grant()
	if w.flow != nil {
		a.bound(w, l)
		a.grant() // It may have been the turn of who was sent away.
	}
	a.mu.Unlock()

	select {
	case <-w.ready:
	case <-ctx.Done():
		a.mu.Lock()
		switch {
		case w.flow != nil:
			a.dequeue(w, l)
			w.err = ctx.Err()
		case w.err == nil:
			// Both happened. Nobody wants it any more.
			t.giveBack()
			w.err = ctx.Err()
		}
		a.grant() // What stood behind this request may go.
		a.mu.Unlock()
	}
	waited := time.Since(start)
	t.waited += waited
	if w.err == nil {
		a.allowanceMetrics.waited[l].Observe(waited.Seconds())
		return nil
	}
	if errors.Is(w.err, ctx.Err()) {
		return a.gaveUp(t, l, n, waited, w.err)
	}
	return w.err
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

// first returns whose turn it is but for bytes and places.
func (a *Admission) first(l lane, kind Kind) *waiter {
	q := &a.queues[l][kind]
	if q.len == 0 {
		return nil
	}
	return q.next(a.mayGo)
}

// crowds reports whether a client address has all the places that it may have beside others: three
// quarters of them for one share. A client chooses the names of its tenants, and not its address.
func (a *Admission) crowds(c inbound.Client) bool {
	part := max(1, a.places-max(1, a.places/4)) * max(1, c.Shares)
	return a.places > 0 && a.clients[c] >= part
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

// Crowds reports whether a client has all the places that it may have while a request of another
// client waits for one.
func (a *Admission) Crowds(c inbound.Client) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.crowds(c) {
		return false
	}
	for l := range lanes {
		for other := range a.queues[l][SeriesRequest].clients {
			if other != c {
				return true
			}
		}
	}
	return false
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

// tooLarge returns the error of a request of n bytes that could not go in an idle process either: it is refused, not cut down to size, because the
// bytes would be used all the same.
func (a *Admission) tooLarge(t *Turn, n int64) error {
	if n <= a.smallRequest {
		return nil
	}
	if most := a.total - a.part; n > most {
		a.allowanceMetrics.refused.WithLabelValues("too_large").Inc()
		return status.Errorf(codes.ResourceExhausted,
			"the request needs an estimated %d bytes, more than the %d bytes that one request may have of the request allowance of %d bytes (--store.request-bytes)",
			n, most, a.total)
	}
	if most := a.most(t); n > most {
		a.allowanceMetrics.refused.WithLabelValues("too_large").Inc()
		return status.Errorf(codes.ResourceExhausted,
			"the request needs an estimated %d bytes, more than the %d bytes of the request allowance that its tenant may have (request_bytes_ratio of --store.limits.config)",
			n, most)
	}
	return nil
}

// gaveUp words the error of a request whose client did not wait, and counts it.
func (a *Admission) gaveUp(t *Turn, l lane, n int64, waited time.Duration, err error) error {
	waited = waited.Round(time.Millisecond)
	code := status.FromContextError(err).Code()
	if t.kind == SeriesRequest {
		a.mu.Lock()
		free := a.placeFree(l) && a.withinClient(t)
		a.mu.Unlock()
		if !free {
			a.gateMetrics.rejected.WithLabelValues(rejectedGaveUp).Inc()
			return status.Errorf(code, "waited %s for one of %s: %s", waited, a.placesOf(l), err)
		}
	}
	a.allowanceMetrics.refused.WithLabelValues("gave_up").Inc()
	return status.Errorf(code, "waited %s for %d bytes of the request allowance of %d bytes (--store.request-bytes): %s", waited, n, a.total, err)
}

// SetLimits replaces the limits of tenants, lets those go whom the new ones let go, and refuses those that could never go by them.
func (a *Admission) SetLimits(others LimitOptions, tenants map[string]LimitOptions) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limits.set(others, tenants)
	for k := range requestKinds {
		q := &a.queues[large][k]
		for _, w := range q.waiters() {
			if err := a.tooLarge(w.turn, w.bytes); err != nil {
				a.sendAway(w, large, err)
			}
		}
	}
	a.grant()
}

// sendAway ends the waiting of a request with an error.
func (a *Admission) sendAway(w *waiter, l lane, err error) {
	a.dequeue(w, l)
	w.err = err
	close(w.ready)
}

// Busy reports whether it is no time for work that no request waits for: requests wait, or half of the allowance is in use.
func (a *Admission) Busy() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.anyWaits() || a.held[small]+a.held[large] >= a.total/2
}

// Waiting reports whether requests wait for their turn, and whether it is bytes that one of them lacks.
func (a *Admission) Waiting() (waiting, forBytes bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.anyWaits(), a.next(small) != nil || a.next(large) != nil
}

func (a *Admission) anyWaits() bool {
	for l := range lanes {
		for k := range requestKinds {
			if a.queues[l][k].len > 0 {
				return true
			}
		}
	}
	return false
}

// InUse is the number of bytes that requests hold now.
func (a *Admission) InUse() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held[small] + a.held[large]
}
