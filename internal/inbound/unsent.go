package inbound

import "context"

// unsent is an answer whose bytes stay reserved until grpc has written it.
type unsent struct {
	release func()
	looks   int // number of looks that have found it
}

// Sending registers an answer. release is called once: when the caller calls sent, or when the
// connection is closed before.
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

// sent releases an answer, unless its connection was closed before.
func (r *Requests) sent(held *connRequests, u *unsent) {
	r.mu.Lock()
	_, kept := held.answers[u]
	delete(held.answers, u)
	r.mu.Unlock()
	if kept {
		u.release()
	}
}

// releaseAnswers releases the answers that a closed connection has not sent.
func (r *Requests) releaseAnswers(held *connRequests) {
	r.mu.Lock()
	answers := held.answers
	held.answers = nil
	r.mu.Unlock()
	for u := range answers {
		u.release()
	}
}
