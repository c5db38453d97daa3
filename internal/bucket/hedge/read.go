package hedge

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"larder/internal/panics"
)

// read is one read, for which a caller waits.
type read struct {
	b           *Bucket
	ctx         context.Context // the caller's
	name        string
	off, length int64 // length -1: to the end
	object      bool  // a Get
	class       *class

	// opened receives every answered request that may still be used. Its capacity is enough for all
	// requests of the read.
	opened chan *attempt

	mu sync.Mutex
	// settled says that the answer is known. A request that is opened from then on is closed by the
	// goroutine that opened it.
	settled  bool
	attempts []*attempt // all that were started
	running  int
	// left says that the caller has read its answer to the end or has cancelled.
	left bool
	// slots is the number of slots acquired. INVARIANT: slots < running until the caller has left,
	// because one request runs in the caller's slot. After that, slots <= running.
	slots int
}

// attempt is one request to the bucket.
type attempt struct {
	reason  string // "" for the first request
	pos     int64  // its start, relative to the read
	ctx     context.Context
	cancel  context.CancelFunc
	started time.Time

	// Written by the goroutine that opens it, before it is passed on.
	body io.ReadCloser
	err  error
}

func (b *Bucket) read(r *read) (io.ReadCloser, error) {
	g := b.gate
	g.request()
	g.running.Add(1)
	r.opened = make(chan *attempt, 1+b.opts.UpTo)
	first := r.start("", 0)
	go r.run(first)

	delay := r.class.delay()
	timer := time.NewTimer(delay)
	defer timer.Stop()
	if delay == 0 {
		timer.Stop()
	}
	late := false
	defer func() {
		if late {
			g.waiting.Add(-1)
		}
		g.lates.add(late)
	}()

	var firstErr error
	for {
		select {
		case a := <-r.opened:
			if a.err == nil {
				r.settle(a)
				g.failures.add(false)
				r.count(a, resultWon)
				if firstErr == nil { // the time of the first request, or how long it has waited
					r.class.observe(time.Since(first.started))
				}
				return newBody(r, a), nil
			}
			if firstErr == nil || a == first {
				firstErr = a.err
			}
			r.ended(a)
			// A missing object is an answer, whatever failed before. After any other failure, a
			// request that still runs may succeed.
			missing := b.IsObjNotFoundErr(a.err)
			if missing {
				firstErr = a.err
			}
			if missing || r.pending() == 0 {
				r.settle(nil)
				g.running.Add(-1)
				return nil, firstErr
			}
		case <-timer.C:
			if !late {
				late = true
				g.waiting.Add(1)
			}
			if a := r.hedge(reasonFirstByte, 0); a != nil {
				go r.run(a)
			}
			delay *= 2
			timer.Reset(delay)
		case <-r.ctx.Done():
			if late {
				r.class.observe(time.Since(first.started))
			}
			r.settle(nil)
			g.running.Add(-1)
			return nil, r.ctx.Err()
		}
	}
}

// start registers a request, which the caller then opens.
func (r *read) start(reason string, pos int64) *attempt {
	a := &attempt{reason: reason, pos: pos, started: time.Now()}
	a.ctx, a.cancel = context.WithCancel(r.ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempts = append(r.attempts, a)
	r.running++
	if reason != "" {
		r.slots++
	}
	return a
}

// hedge registers an extra request if one is allowed, and returns nil otherwise.
func (r *read) hedge(reason string, pos int64) *attempt {
	r.mu.Lock()
	spent := len(r.attempts) > r.b.opts.UpTo
	r.mu.Unlock()
	if spent {
		return nil
	}
	if refused := r.b.gate.admit(); refused != "" {
		r.b.metrics.refused.WithLabelValues(reason, refused).Inc()
		return nil
	}
	return r.start(reason, pos)
}

// run opens a request and passes it on.
func (r *read) run(a *attempt) {
	r.open(a)
	r.mu.Lock()
	settled := r.settled
	if !settled {
		r.opened <- a
	}
	r.mu.Unlock()
	if settled {
		r.discard(a)
	}
}

// open sends a request to the client.
func (r *read) open(a *attempt) {
	a.err = r.contained(a, func() (err error) {
		if r.object {
			a.body, err = r.b.Bucket.Get(a.ctx, r.name)
			return err
		}
		length := r.length
		if length >= 0 {
			length -= a.pos
		}
		a.body, err = r.b.Bucket.GetRange(a.ctx, r.name, r.off+a.pos, length)
		return err
	})
	if a.err != nil {
		// Some clients return a body with the error. The Close of GCS's panics.
		a.body = nil
	}
}

// close closes the body of a request.
func (r *read) close(a *attempt) error { return r.contained(a, a.body.Close) }

// contained calls the client and returns its panic as an error. Most calls run on goroutines of
// this package, where a panic would end the process. On the caller's goroutine it would leak a
// slot.
func (r *read) contained(a *attempt, f func() error) error {
	return Contained(r.b.panics, r.name, r.off+a.pos, f)
}

// Contained calls a client of the bucket for a read at an offset. It counts and logs a panic, and
// returns it as an error with a *panics.Error in its chain.
func Contained(g *panics.Guard, object string, off int64, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the bucket's client: %w",
				g.Caught(v, "object", object, "offset", off))
		}
	}()
	return f()
}

// settle ends the opening phase and cancels all requests but the winner.
func (r *read) settle(winner *attempt) {
	r.mu.Lock()
	r.settled = true
	r.left = winner == nil
	for _, a := range r.attempts {
		if a != winner {
			a.cancel()
		}
	}
	r.mu.Unlock()
	for {
		select {
		case a := <-r.opened:
			r.discard(a)
		default:
			return
		}
	}
}

func (r *read) pending() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running
}

// discard closes a request that is not used.
func (r *read) discard(a *attempt) {
	cancelled := a.ctx.Err() != nil
	a.cancel() // before Close, which would otherwise read the body to its end
	if a.body != nil {
		_ = r.close(a) // its result is not used
	}
	if a.err == nil {
		r.count(a, resultLost)
	}
	r.over(a, cancelled)
}

// ended counts a request that failed, or that was used and closed.
func (r *read) ended(a *attempt) { r.over(a, a.ctx.Err() != nil) }

// over counts the result of a request and releases its slot. A cancelled request says nothing about
// the bucket.
func (r *read) over(a *attempt, cancelled bool) {
	a.cancel()
	switch {
	case a.err == nil:
	case cancelled:
		r.count(a, resultLost)
	default:
		r.count(a, resultFailed)
		r.b.gate.failures.add(!r.b.IsObjNotFoundErr(a.err))
	}
	r.mu.Lock()
	r.running--
	spare := r.running
	if !r.left {
		spare--
	}
	release := r.slots > max(spare, 0)
	if release {
		r.slots--
	}
	r.mu.Unlock()
	if release {
		r.b.gate.release()
	}
}

// count counts the result of an extra request.
func (r *read) count(a *attempt, result string) {
	if a.reason != "" {
		r.b.metrics.hedges.WithLabelValues(a.reason, result).Inc()
	}
}
