package slots

import "container/list"

// turns are the places of one class. Tenants take turns, within a tenant its requests, and the
// places of a request come in the order of their arrival. Each turn is one place.
//
// INVARIANT: every tenant has a request, and every request a place.
type turns struct {
	len     int
	tenants ring[string, *tenant]
}

// tenant has the requests of one tenant with waiting reads.
type tenant struct {
	requests ring[Owner, *queue]
}

// queue has the places of one request. Places that were withdrawn are nil, but not the first one.
type queue struct {
	places []*place
	n      int // places that are not nil
}

// ring is a list in the order of turns, with an index.
type ring[K comparable, V any] struct {
	order list.List // of entry[K, V]
	byKey map[K]*list.Element
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

// get returns the entry of key. A new one has the last turn.
func (r *ring[K, V]) get(key K, fresh func() V) V {
	if e := r.byKey[key]; e != nil {
		return e.Value.(entry[K, V]).value
	}
	if r.byKey == nil {
		r.byKey = map[K]*list.Element{}
	}
	v := fresh()
	r.byKey[key] = r.order.PushBack(entry[K, V]{key, v})
	return v
}

func (r *ring[K, V]) first() V { return r.order.Front().Value.(entry[K, V]).value }

// next ends the turn of the first entry.
func (r *ring[K, V]) next() { r.order.MoveToBack(r.order.Front()) }

func (r *ring[K, V]) remove(key K) {
	r.order.Remove(r.byKey[key])
	delete(r.byKey, key)
}

func (t *turns) push(p *place) {
	of := t.tenants.get(p.owner.tenant, func() *tenant { return &tenant{} })
	q := of.requests.get(*p.owner, func() *queue { return &queue{} })
	q.places = append(q.places, p)
	q.n++
	p.in, p.queue = t, q
	t.len++
}

// first returns the place whose turn it is.
func (t *turns) first() *place { return t.tenants.first().requests.first().places[0] }

// next removes the first place and ends the turns of its request and tenant.
func (t *turns) next() {
	p := t.first()
	t.tenants.first().requests.next()
	t.tenants.next()
	t.remove(p)
}

// remove removes a place.
func (t *turns) remove(p *place) {
	q := p.queue
	p.in, p.queue = nil, nil
	t.len--
	if q.n--; q.n == 0 {
		of := t.tenants.get(p.owner.tenant, nil)
		of.requests.remove(*p.owner)
		if of.requests.order.Len() == 0 {
			t.tenants.remove(p.owner.tenant)
		}
		return
	}
	for i, o := range q.places {
		if o == p {
			q.places[i] = nil
			break
		}
	}
	for q.places[0] == nil {
		q.places = q.places[1:]
	}
}
