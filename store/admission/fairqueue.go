package admission

import (
	"container/list"

	"larder/internal/inbound"
)

// fairQueue lets requests that wait go in turns: between tenants by weight, first come first served within a tenant. It is start-time fair
// queueing. Every tenant that waits has a start, in a time that counts granted cost by weight; the earliest goes next, and what it
// gets, divided by its weight, is how much later it starts the next time. A tenant that comes new starts now. So a thousand requests of
// one tenant delay the only one of another by about one grant, and over time tenants that always wait get cost as their weights are.
//
// Whose turn has come keeps it until it is granted, gives up, or may not go for a reason of its own: a large request for which room is made is not
// overtaken by smaller ones that would fit. And one turn of sixteen is that of who has waited longest, whoever that is: clients choose the names of
// tenants, and names that are always new must not keep anybody waiting for ever.
//
// It has no lock: its owner's guards it. The zero value is empty.
type fairQueue struct {
	virtualTime float64          // how far turns have come
	flows       map[string]*flow // of tenants that wait, and of those that have had more than their part of late
	busy        []*flow          // those that wait, in no order
	len         int
	// clients is how many waiters each client address has.
	clients map[inbound.Client]int
	upNext  *waiter // whose turn has come; nil for nobody
	grants  int     // granted since the last of who had waited longest
}

const (
	// oldestEvery is how many turns there are to one of who has waited longest.
	oldestEvery = 16
	// idleFlows is how many tenants that do not wait are remembered, besides as many as do.
	idleFlows = 64
)

// flow is what one tenant waits for.
type flow struct {
	tenant string
	start  float64   // when the first of its waiters is to go; without waiters: when it may start again
	line   list.List // of *waiter, oldest first
	at     int       // in busy
}

// waiter is a request that waits for its turn.
type waiter struct {
	tenant  string
	weight  float64 // above 0
	cost    float64 // above 0
	arrival uint64  // larger for who came later

	// What the queue does not look at: who waits for how many bytes, and how it hears of it. ready is closed, under the lock, when the request holds
	// what it asked for, or is sent away with err.
	turn  *Turn
	bytes int64
	ready chan struct{}
	err   error

	flow *flow // nil when it does not wait
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

// next returns whose turn it is, of those who may go; nil for nobody. It stays their turn.
func (q *fairQueue) next(may func(*waiter) bool) *waiter {
	if q.upNext != nil && may(q.upNext) {
		return q.upNext
	}
	var best *waiter
	for _, f := range q.busy {
		w := f.line.Front().Value.(*waiter)
		if (best == nil || q.before(w, best)) && may(w) {
			best = w
		}
	}
	if best != nil {
		q.upNext = best
	}
	return best
}

// before reports whether w goes before o.
func (q *fairQueue) before(w, o *waiter) bool {
	if q.grants < oldestEvery-1 && w.flow.start != o.flow.start {
		return w.flow.start < o.flow.start
	}
	return w.arrival < o.arrival
}

// grant takes w out, which goes: its tenant's next turn comes later by what w costs.
func (q *fairQueue) grant(w *waiter) {
	var weights float64
	for _, f := range q.busy {
		weights += f.line.Front().Value.(*waiter).weight
	}
	f := w.flow
	// As much as all who wait have got on average, so that whoever comes now and then does not always go first.
	q.virtualTime = max(q.virtualTime+w.cost/weights, f.start)
	f.start += w.cost / w.weight
	if q.grants++; q.grants == oldestEvery {
		q.grants = 0
	}
	q.remove(w)
}

// remove takes w out, which has given up: nobody is charged for it.
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
		// All that waited are served. Who had how much of it does not matter to those who come later.
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
			// Clients choose the names of tenants: they must not fill the memory.
			q.forget(func(*flow) bool { return true })
		}
	}
}

// forget drops tenants that do not wait.
func (q *fairQueue) forget(which func(*flow) bool) {
	for name, f := range q.flows {
		if f.line.Len() == 0 && which(f) {
			delete(q.flows, name)
		}
	}
}

// waiters returns all that wait, in no order.
func (q *fairQueue) waiters() []*waiter {
	var out []*waiter
	q.each(func(w *waiter) { out = append(out, w) })
	return out
}

// toReject returns which waiter goes when too many wait and w came last. It is the newest of one
// client's waiters, and of one tenant's among these: the client that has most waiting for its
// shares, and its tenant that has most waiting for its weight. Among equals it is w's client, and
// w's tenant.
//
// Clients go before tenants because a client chooses the names of its tenants, and not its address.
func (q *fairQueue) toReject(w *waiter) *waiter {
	client := w.turn.client
	most := float64(q.clients[client]) / float64(max(1, client.Shares))
	for c, n := range q.clients {
		if load := float64(n) / float64(max(1, c.Shares)); load > most {
			client, most = c, load
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

// of returns the newest waiter of a client, and how many it has; all are its own if it is the only
// one.
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

// each calls f for each waiter.
func (q *fairQueue) each(f func(*waiter)) {
	for _, flow := range q.busy {
		for e := flow.line.Front(); e != nil; e = e.Next() {
			f(e.Value.(*waiter))
		}
	}
}
