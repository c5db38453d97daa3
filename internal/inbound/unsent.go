package inbound

import "context"

// unsent is an answer that grpc keeps until its client reads it.
type unsent struct {
	bytes   int64
	release func()
}

// Sending counts an answer of a unary request, which grpc keeps until its client reads it. release
// is called once: when the answer was sent, which the caller tells by calling sent, or when its
// connection is gone. When more than Unsent bytes are kept, the client that has most for its share
// loses the connection that has most, unless the answer is the only one.
func (r *Requests) Sending(ctx context.Context, bytes int64, release func()) (sent func()) {
	u := &unsent{bytes, release}
	a, ok := ctx.Value(arrivalKey{}).(*arrival)
	if !ok {
		return release
	}
	held := a.conn
	r.mu.Lock()
	if held.gone {
		r.mu.Unlock()
		release()
		return func() {}
	}
	if held.answers == nil {
		held.answers = map[*unsent]struct{}{}
	}
	held.answers[u] = struct{}{}
	held.unsent += bytes
	r.unsent += bytes
	var loser *Conn
	if r.unsent > r.opts.Unsent && r.unsent > bytes {
		loser = r.lose(r.most(func(o *connRequests) int64 { return o.unsent }))
	}
	r.mu.Unlock()
	if loser != nil {
		loser.hangUp(answersUnread)
	}
	return func() { r.sent(held, u) }
}

// sent releases an answer, if its connection was not gone before.
func (r *Requests) sent(held *connRequests, u *unsent) {
	r.mu.Lock()
	_, kept := held.answers[u]
	if kept {
		delete(held.answers, u)
		held.unsent -= u.bytes
		if !held.gone {
			r.unsent -= u.bytes
		}
	}
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
