package web

import (
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// places are the answers of one kind that are made at once. When all are taken, a request takes the
// place of the oldest answer of the client that has most, if that client has more of them than its
// own. A client that does not read its answers therefore cannot keep others from theirs.
//
// INVARIANT: no more than n answers are made at once. A request that takes a place begins when the
// answer that loses it has ended.
type places struct {
	n int

	// mu guards held. Answers are ended under it, because after leave the deadline would be that of
	// the connection's next request.
	mu   sync.Mutex
	held []*place // oldest first, without those that lost their place
}

// place is held for one answer.
type place struct {
	client netip.Prefix
	end    func()        // makes writing the answer fail; it does not wait
	lost   chan struct{} // closed when another client has it
	free   chan struct{} // closed when the answer has ended
}

// bound returns a wrapper of handlers that share the places.
func (p *places) bound(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		own := &place{client: clientOf(r), lost: make(chan struct{}), free: make(chan struct{})}
		own.end = func() { _ = http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0)) }
		before, ok := p.take(own)
		if !ok {
			w.Header().Set("Retry-After", "1")
			const text = "busy with requests of this kind, try again"
			http.Error(w, text, http.StatusServiceUnavailable)
			return
		}
		defer p.leave(own)
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

// take gives a place to own. before is the answer that has lost it, nil for none.
func (p *places) take(own *place) (before *place, ok bool) {
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

// largest returns the oldest answer of the client that has most, nil if none has more than client.
// mu is held.
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

// drop is called with mu held.
func (p *places) drop(own *place) {
	for i, h := range p.held {
		if h == own {
			p.held = append(p.held[:i], p.held[i+1:]...)
			return
		}
	}
}

func (p *places) leave(own *place) {
	p.mu.Lock()
	p.drop(own)
	p.mu.Unlock()
	close(own.free)
}

// clientOf returns what counts as one client: an address, or the /64 of an IPv6 address.
func clientOf(r *http.Request) netip.Prefix {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{} // a socket without addresses: all of its clients count as one
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
