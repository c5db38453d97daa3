package inbound

import "context"

// unsent is what an answer holds until grpc has written it.
type unsent struct {
	release func()
	looks   int // how often look has found it
}

// Sending has release called once: when an answer was sent, which the caller tells by calling sent,
// or when its connection is gone.
func (r *Requests) Sending(ctx context.Context, release func()) (sent func()) {
	a, ok := ctx.Value(arrivalKey{}).(*arrival)
	if !ok {
		return release
	}
	u, held := &unsent{release: release}, a.conn
	r.mu.Lock()
	gone := held.gone
	if !gone {
		if held.answers == nil {
			held.answers = map[*unsent]struct{}{}
		}
		held.answers[u] = struct{}{}
	}
	r.mu.Unlock()
	if gone {
		release()
		return func() {}
	}
	return func() { r.sent(held, u) }
}

// sent releases an answer, if its connection was not gone before.
func (r *Requests) sent(held *connRequests, u *unsent) {
	r.mu.Lock()
	_, kept := held.answers[u]
	delete(held.answers, u)
	r.mu.Unlock()
	if kept {
		u.release()
	}
}

// releaseAnswers releases what a connection that is gone has not sent.
func (r *Requests) releaseAnswers(held *connRequests) {
	r.mu.Lock()
	answers := held.answers
	held.answers = nil
	r.mu.Unlock()
	for u := range answers {
		u.release()
	}
}
