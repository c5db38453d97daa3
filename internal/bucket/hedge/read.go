package hedge

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"larder/internal/panics"
)

// read is one read that somebody waits for.
type read struct {
	b           *Bucket
	ctx         context.Context // the caller's
	name        string
	off, length int64 // length -1: to the end
	object      bool  // by Get
	class       *class

	// opened receives every request that is not known to be superfluous when
	// the client has answered it; there is room for all.
	opened chan *attempt

	mu sync.Mutex
	// settled: the answer is known, and what is opened from now on is closed by
	// whoever opened it.
	settled  bool
	attempts []*attempt // all that were started
	running  int
	// left: the caller has its answer to the end, or gave up.
	left bool
	// held is the slots taken. INVARIANT: held < running while the caller is
	// there, whose slot one of the requests runs in; held <= running after that.
	held int
}

// attempt is one request to the bucket.
type attempt struct {
	reason  string // "" for the first
	pos     int64  // where it starts, relative to the read
	ctx     context.Context
	cancel  context.CancelFunc
	started time.Time

	// Written by the goroutine that opens it, before it is handed on.
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
				if firstErr == nil { // the first request's time, or how long it had waited
					r.class.observe(time.Since(first.started))
				}
				return newBody(r, a), nil
			}
			if firstErr == nil || a == first {
				firstErr = a.err
			}
			r.ended(a)
			// That an object is not there is an answer, whatever failed before it;
			// another failure may be made good by a request that still runs.
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

// start registers a request that the caller then opens.
func (r *read) start(reason string, pos int64) *attempt {
	a := &attempt{reason: reason, pos: pos, started: time.Now()}
	a.ctx, a.cancel = context.WithCancel(r.ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempts = append(r.attempts, a)
	r.running++
	if reason != "" {
		r.held++
	}
	return a
}

// hedge registers an extra request if there may be one.
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

// run opens a request and hands it on.
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

// open asks the client.
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
		// Some clients return a body beside the error, GCS's one whose Close panics.
		a.body = nil
	}
}

// close closes the body of a request.
func (r *read) close(a *attempt) error { return r.contained(a, a.body.Close) }

// contained calls into the client. Most of its calls run on goroutines of this
// package, where a panic would end the process; on the caller's one would leave
// a slot behind.
func (r *read) contained(a *attempt, f func() error) error {
	return Contained(r.b.panics, r.name, r.off+a.pos, f)
}

// Contained calls into a client of the bucket, on behalf of a read at an offset.
// A panic is noted, and becomes an error: a panics.Error in its chain.
func Contained(g *panics.Guard, object string, off int64, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf(
				"the bucket's client: %w", g.Caught(v, "object", object, "offset", off),
			)
		}
	}()
	return f()
}

// settle ends the opening: all requests but the winner are cancelled.
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
	a.cancel() // before Close: a body must not be read to its end
	if a.body != nil {
		_ = r.close(a) // nobody waits for it
	}
	if a.err == nil {
		r.count(a, resultLost)
	}
	r.over(a, cancelled)
}

// ended counts a request that failed, or that was used and closed.
func (r *read) ended(a *attempt) { r.over(a, a.ctx.Err() != nil) }

// over counts the result of a request and gives back its slot. One that was
// cancelled says nothing about the bucket.
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
	release := r.held > max(spare, 0)
	if release {
		r.held--
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
