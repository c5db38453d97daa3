package web

import (
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// places bounds the concurrent answers of one kind. If all places are in use, a new request
// replaces the oldest answer of the client with the most answers, provided that this client has
// more than the new one. A client that does not read its answers therefore cannot block others.
//
// INVARIANT: at most n answers are made concurrently. A request begins only after the answer that
// it replaces has ended.
type places struct {
	n int

	// mu guards held. Answers are ended under it, because after release the deadline would apply to
	// the next request of the connection.
	mu   sync.Mutex
	held []*place // oldest first, without replaced answers
}

// place is a place of one answer.
type place struct {
	client netip.Prefix
	end    func()        // makes writing the answer fail; does not block
	lost   chan struct{} // closed when another answer replaces it
	free   chan struct{} // closed when the answer has ended
}

// bound wraps a handler. All wrapped handlers share the places.
func (p *places) bound(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		own := &place{client: clientOf(r), lost: make(chan struct{}), free: make(chan struct{})}
		own.end = func() { _ = http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0)) }
		before, ok := p.acquire(own)
		if !ok {
			w.Header().Set("Retry-After", "1")
			const text = "busy with requests of this kind, try again"
			http.Error(w, text, http.StatusServiceUnavailable)
			return
		}
		defer p.release(own)
		if before != nil {
			select {
			case <-before.free:
			case <-own.lost:
				<-before.free // INVARIANT
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// acquire assigns a place to own. before is the answer that own replaces, nil for none.
func (p *places) acquire(own *place) (before *place, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.held) >= p.n {
		if before = p.largest(own.client); before == nil {
			return nil, false
		}
		before.end()
		close(before.lost)
		p.drop(before)
	}
	p.held = append(p.held, own)
	return before, true
}

// largest returns the oldest answer of the client with the most answers, nil if no client has more
// than the given one. Call it with mu held.
func (p *places) largest(client netip.Prefix) *place {
	has := map[netip.Prefix]int{}
	for _, h := range p.held {
		has[h.client]++
	}
	var found *place
	most := has[client]
	for _, h := range p.held {
		if has[h.client] > most {
			found, most = h, has[h.client]
		}
	}
	return found
}

// drop removes own from held. Call it with mu held.
func (p *places) drop(own *place) {
	for i, h := range p.held {
		if h == own {
			p.held = append(p.held[:i], p.held[i+1:]...)
			return
		}
	}
}

func (p *places) release(own *place) {
	p.mu.Lock()
	p.drop(own)
	p.mu.Unlock()
	close(own.free)
}

// clientOf returns the client of a request: an address, or the /64 of an IPv6 address.
func clientOf(r *http.Request) netip.Prefix {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{} // a socket without addresses: all clients count as one
	}
	ip := from.Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	network, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return network
}
