package admission

import (
	"container/list"

	"larder/internal/inbound"
)

// fairQueue orders waiting requests: tenants take turns by weight, and requests of one tenant go
// first come, first served. It is a form of start-time fair queueing (Goyal and others, 1996). Each
// waiting tenant has a start in virtual time, which counts granted cost by weight. The earliest
// start goes next, and the grant moves it by cost / weight. A new tenant starts at the current
// virtual time. A thousand requests of one tenant therefore delay the only request of another by
// about one grant.
//
// A request that is up next stays so until it is granted or removed, or until its limits forbid it
// to run. Smaller requests that would fit do not overtake a large one that gathers bytes.
//
// Every 16th grant goes to the oldest waiter, whatever its tenant. Clients choose tenant names, and
// names that are always new must not make a request wait for ever.
//
// LOCKING: the owner's lock guards it. The zero value is empty.
type fairQueue struct {
	virtualTime float64
	flows       map[string]*flow // of tenants that wait, and of some that have waited recently
	busy        []*flow          // of tenants that wait, in no particular order
	len         int
	clients     map[inbound.Client]int // how many requests of each client wait
	upNext      *waiter                // nil if not chosen yet
	grants      int                    // since the last grant by age
}

const (
	// oldestEvery is the period of grants that go to the oldest waiter.
	oldestEvery = 16
	// idleFlows is how many more idle tenants than waiting ones the queue remembers.
	idleFlows = 64
)

// flow holds the waiting requests of one tenant.
type flow struct {
	tenant string
	start  float64   // virtual time of its next grant, or from which it may wait again
	line   list.List // of *waiter, oldest first
	at     int       // index in fairQueue.busy
}

// waiter is a waiting request.
type waiter struct {
	tenant  string
	weight  float64 // above 0
	cost    float64 // above 0
	arrival uint64  // rises with each request that waits

	// The Controller uses the following fields. It closes ready, under its lock, when the request
	// is granted or, with err, rejected.
	turn  *Turn
	bytes int64
	ready chan struct{}
	err   error

	flow *flow // nil if it no longer waits
	elem *list.Element
}

func (q *fairQueue) push(w *waiter) {
	f := q.flows[w.tenant]
	if f == nil {
		if q.flows == nil {
			q.flows = map[string]*flow{}
		}
		f = &flow{tenant: w.tenant}
		q.flows[w.tenant] = f
	}
	if f.line.Len() == 0 {
		f.start = max(f.start, q.virtualTime)
		f.at = len(q.busy)
		q.busy = append(q.busy, f)
	}
	w.flow, w.elem = f, f.line.PushBack(w)
	q.len++
	if w.turn != nil {
		if q.clients == nil {
			q.clients = map[inbound.Client]int{}
		}
		q.clients[w.turn.client]++
	}
}

// next returns the request that is up next among those that may run, nil if there is none. It stays
// up next. Within a tenant the first request decides: if it may not run, those behind it do not.
// Only a request that passOver names, because its client has to leave places to others, is passed
// by those behind it.
func (q *fairQueue) next(may, passOver func(*waiter) bool) *waiter {
	if q.upNext != nil && !passOver(q.upNext) && may(q.upNext) {
		return q.upNext
	}
	var best *waiter
	for _, f := range q.busy {
		w := f.first(passOver)
		if w != nil && (best == nil || q.before(w, best)) && may(w) {
			best = w
		}
	}
	if best != nil {
		q.upNext = best
	}
	return best
}

// first returns the first waiter of a tenant that passOver does not name, nil if there is none.
func (f *flow) first(passOver func(*waiter) bool) *waiter {
	for e := f.line.Front(); e != nil; e = e.Next() {
		if w := e.Value.(*waiter); !passOver(w) {
			return w
		}
	}
	return nil
}

// before reports whether w goes before o.
func (q *fairQueue) before(w, o *waiter) bool {
	if q.grants < oldestEvery-1 && w.flow.start != o.flow.start {
		return w.flow.start < o.flow.start
	}
	return w.arrival < o.arrival
}

// grant removes w because it may run, and charges its tenant for the cost of w.
func (q *fairQueue) grant(w *waiter) {
	var weights float64
	for _, f := range q.busy {
		weights += f.line.Front().Value.(*waiter).weight
	}
	f := w.flow
	// Virtual time moves by the average grant of all waiting tenants. A tenant that waits now and
	// then therefore does not always go first.
	q.virtualTime = max(q.virtualTime+w.cost/weights, f.start)
	f.start += w.cost / w.weight
	if q.grants++; q.grants == oldestEvery {
		q.grants = 0
	}
	q.remove(w)
}

// remove removes w without a charge to its tenant.
func (q *fairQueue) remove(w *waiter) {
	f := w.flow
	f.line.Remove(w.elem)
	w.flow, w.elem = nil, nil
	if w.turn != nil {
		if q.clients[w.turn.client]--; q.clients[w.turn.client] == 0 {
			delete(q.clients, w.turn.client)
		}
	}
	if q.upNext == w {
		q.upNext = nil
	}
	if q.len--; q.len == 0 {
		// No request waits, so earlier grants matter no longer.
		clear(q.flows)
		clear(q.busy)
		q.virtualTime, q.grants, q.busy = 0, 0, q.busy[:0]
		return
	}
	if f.line.Len() > 0 {
		return
	}
	last := len(q.busy) - 1
	q.busy[f.at] = q.busy[last]
	q.busy[f.at].at = f.at
	q.busy[last] = nil
	q.busy = q.busy[:last]
	if len(q.flows) > 2*len(q.busy)+idleFlows {
		q.forget(func(idle *flow) bool { return idle.start <= q.virtualTime })
		if len(q.flows) > 2*len(q.busy)+idleFlows {
			// Clients choose tenant names, which must not fill the memory.
			q.forget(func(*flow) bool { return true })
		}
	}
}

// forget drops the tenants that do not wait and that which selects.
func (q *fairQueue) forget(which func(*flow) bool) {
	for name, f := range q.flows {
		if f.line.Len() == 0 && which(f) {
			delete(q.flows, name)
		}
	}
}

// waiters returns all waiting requests, in no particular order.
func (q *fairQueue) waiters() []*waiter {
	var out []*waiter
	q.each(func(w *waiter) { out = append(out, w) })
	return out
}

// toReject returns the request to reject when the queue is too long and w came last. It chooses the
// client with the most waiting requests per share, then that client's tenant with the most per
// weight, then the newest of these. Ties go to the client and the tenant of w.
//
// It goes by client first because a client chooses its tenant, but not its address.
func (q *fairQueue) toReject(w *waiter) *waiter {
	client := w.turn.client
	highest := float64(q.clients[client]) / float64(max(1, client.Shares))
	for c, n := range q.clients {
		if load := float64(n) / float64(max(1, c.Shares)); load > highest {
			client, highest = c, load
		}
	}
	var worst *waiter
	var worstLoad float64
	for _, flow := range q.busy {
		newest, n := flow.of(client, len(q.clients) == 1)
		if n == 0 {
			continue
		}
		load := float64(n) / newest.weight
		if worst == nil || load > worstLoad || load == worstLoad && flow.tenant == w.tenant {
			worst, worstLoad = newest, load
		}
	}
	return worst
}

// of returns the newest request of a client, and how many the client has waiting. only says that
// the queue has no other client.
func (f *flow) of(client inbound.Client, only bool) (newest *waiter, n int) {
	if only {
		return f.line.Back().Value.(*waiter), f.line.Len()
	}
	for e := f.line.Back(); e != nil; e = e.Prev() {
		if w := e.Value.(*waiter); w.turn.client == client {
			if newest == nil {
				newest = w
			}
			n++
		}
	}
	return newest, n
}

// each calls f for each waiting request.
func (q *fairQueue) each(f func(*waiter)) {
	for _, flow := range q.busy {
		for e := flow.line.Front(); e != nil; e = e.Next() {
			f(e.Value.(*waiter))
		}
	}
}
