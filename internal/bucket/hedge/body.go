package hedge

import (
	"io"
	"time"

	"github.com/thanos-io/objstore"
)

const (
	// step bounds one Read of a body in bytes. Some clients return only when they have filled the
	// buffer: with a larger one, a slow body would look stalled.
	step = 64 << 10
	// maxEmptyReads is how many Reads of a body in a row may return no bytes and no error.
	maxEmptyReads = 100
)

// body is the body that the caller of a read gets.
type body struct {
	r     *read
	stall time.Duration // Read longer than this is a stall; 0: stalls are not watched
	timer *time.Timer   // runs watch; made by the first Read

	// The fields below belong to the goroutine that reads.
	cur  *attempt
	head []byte // bytes of cur that were read before it became cur
	skip int64  // bytes of cur after head that have been delivered already
	err  error  // the end, once head and skip are used up

	// Guarded by r.mu.
	pos     int64     // bytes delivered
	since   time.Time // start of the running Read of cur; zero if none runs
	waiting bool      // the running Read is counted in gate.waiting
	rescue  *rescue
	closed  bool
}

// rescue is a request that continues a stalled body.
type rescue struct {
	*attempt
	head []byte // the bytes of its first Read
	err  error  // the error of that Read; nil and io.EOF are no failures

	// ready, guarded by read.mu, says that it is ahead, and that the stalled request was cancelled.
	// The reader closes it from then on.
	ready bool
	done  chan struct{} // closed when it is ready or has failed
}

func newBody(r *read, a *attempt) *body {
	b := &body{r: r, cur: a}
	if delay := r.class.delay(); delay > 0 && !r.object {
		b.stall = max(time.Duration(r.b.opts.StallFactor)*delay, r.b.opts.MinStall)
	}
	return b
}

// ObjectSize returns the number of bytes of the body, if the client knows it.
func (b *body) ObjectSize() (int64, error) { return objstore.TryToGetSize(b.cur.body) }

func (b *body) Read(p []byte) (int, error) {
	if b.stall == 0 || len(p) == 0 {
		return b.failed(b.cur.body.Read(p))
	}
	p = p[:min(len(p), step)]
	for {
		if len(b.head) > 0 {
			n := copy(p, b.head)
			b.head = b.head[n:]
			b.deliver(n)
			return n, nil
		}
		if b.err != nil {
			return 0, b.err
		}
		n, err, again := b.readOnce(p)
		if !again {
			return n, err
		}
	}
}

// readOnce reads cur and watches for a stall. again says that it delivered nothing, but that cur
// has changed or moved forward.
func (b *body) readOnce(p []byte) (n int, err error, again bool) {
	skipping := b.skip > 0
	if skipping {
		p = p[:min(int64(len(p)), b.skip)]
	}
	b.begin()
	n, err = b.cur.body.Read(p)
	res, ready := b.arrived(n, err)
	if skipping {
		b.skip -= int64(n)
		n = 0
	}
	switch {
	case res == nil:
		n, err = b.failed(n, err)
	case ready:
		b.adopt(res)
		err = nil
	default: // cur failed, and res may replace it
		if n > 0 {
			// The bytes go first. The error comes again with the next Read.
			return n, nil, false
		}
		select {
		case <-res.done:
		case <-b.r.ctx.Done():
			return 0, b.r.ctx.Err(), false
		}
		if res.err != nil && res.err != io.EOF {
			n, err = b.failed(n, err)
			return n, err, false
		}
		b.adopt(res)
		err = nil
	}
	return n, err, n == 0 && err == nil && (res != nil || skipping)
}

// begin starts to watch one Read of cur.
func (b *body) begin() {
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	b.since = time.Now()
	if b.timer == nil {
		b.timer = time.AfterFunc(b.stall, b.watch)
	} else {
		b.timer.Reset(b.stall)
	}
}

// arrived ends the watch. It returns the rescue that continues the body, if there is one to adopt
// (ready) or to wait for because cur failed.
func (b *body) arrived(n int, err error) (res *rescue, ready bool) {
	b.timer.Stop()
	r := b.r
	r.mu.Lock()
	b.since = time.Time{}
	if b.waiting {
		b.waiting = false
		r.b.gate.waiting.Add(-1)
	}
	if b.skip == 0 {
		b.pos += int64(n)
	}
	res = b.rescue
	ready = res != nil && res.ready
	complete := err == io.EOF && (r.length < 0 || b.pos >= r.length)
	if res == nil || (ready || err != nil) && !complete {
		r.mu.Unlock()
		return res, ready
	}
	// The stalled request continues, or is complete.
	b.rescue = nil
	r.mu.Unlock()
	b.abandon(res, ready)
	return nil, false
}

// watch runs when a Read of cur has taken too long.
func (b *body) watch() {
	r := b.r
	r.mu.Lock()
	if b.since.IsZero() || time.Since(b.since) < b.stall || b.rescue != nil || b.closed ||
		(r.length >= 0 && b.pos >= r.length) {
		r.mu.Unlock()
		return
	}
	if !b.waiting {
		b.waiting = true
		r.b.gate.waiting.Add(1)
	}
	since, pos := b.since, b.pos
	r.mu.Unlock()

	a := r.hedge(reasonStall, pos)

	r.mu.Lock()
	if !b.since.Equal(since) || b.closed {
		r.mu.Unlock()
		if a != nil {
			r.discard(a)
		}
		return
	}
	if a == nil {
		b.timer.Reset(b.stall) // the budget may allow it then
		r.mu.Unlock()
		return
	}
	res := &rescue{attempt: a, done: make(chan struct{})}
	b.rescue = res
	r.mu.Unlock()
	b.bring(res)
}

// bring opens a rescue and reads its first bytes.
func (b *body) bring(res *rescue) {
	r := b.r
	r.open(res.attempt)
	if res.attempt.err != nil {
		res.err = res.attempt.err
	} else {
		buf := make([]byte, step)
		var n int
		for range maxEmptyReads {
			res.err = r.contained(res.attempt, func() (err error) {
				n, err = res.body.Read(buf)
				return err
			})
			if n > 0 || res.err != nil {
				break
			}
		}
		switch {
		case n > 0:
			if res.err != io.EOF {
				res.err = nil // it comes again with the next Read
			}
		case res.err == nil:
			res.err = io.ErrNoProgress
		}
		res.head = buf[:n]
		if res.err != nil && res.err != io.EOF {
			res.attempt.err = res.err
		}
	}
	failed := res.err != nil && res.err != io.EOF
	r.mu.Lock()
	mine := b.rescue == res
	if mine && !failed {
		res.ready = true
		b.cur.cancel()
	}
	if mine && failed && !b.since.IsZero() {
		b.rescue = nil
		b.timer.Reset(b.stall)
	}
	r.mu.Unlock()
	if !mine || failed {
		r.discard(res.attempt)
	}
	close(res.done)
}

// adopt makes a rescue the request that is read.
func (b *body) adopt(res *rescue) {
	r := b.r
	old := b.cur
	r.mu.Lock()
	b.rescue = nil
	b.cur = res.attempt
	ahead := b.pos - res.pos // delivered since the rescue was requested
	r.mu.Unlock()
	r.count(res.attempt, resultWon)
	old.cancel()
	_ = r.close(old) // all of its bytes that matter were delivered
	r.ended(old)
	drop := min(ahead, int64(len(res.head)))
	b.head, b.skip = res.head[drop:], ahead-drop
	if res.err != nil && b.skip == 0 {
		b.err = res.err
	}
}

// abandon cancels a rescue. The goroutine that opens it closes it, unless it is ready.
func (b *body) abandon(res *rescue, ready bool) {
	res.cancel()
	if ready {
		b.r.discard(res.attempt)
	}
}

func (b *body) deliver(n int) {
	b.r.mu.Lock()
	b.pos += int64(n)
	b.r.mu.Unlock()
}

// failed records an error of the bucket.
func (b *body) failed(n int, err error) (int, error) {
	if err != nil && err != io.EOF && b.cur.ctx.Err() == nil {
		b.r.b.gate.failures.add(true)
	}
	return n, err
}

// Close ends all requests of the read.
func (b *body) Close() error {
	r := b.r
	r.mu.Lock()
	if b.closed {
		r.mu.Unlock()
		return nil
	}
	b.closed = true
	r.left = true
	res := b.rescue
	b.rescue = nil
	ready := res != nil && res.ready
	if b.waiting {
		b.waiting = false
		r.b.gate.waiting.Add(-1)
	}
	cur := b.cur
	r.mu.Unlock()
	if b.timer != nil {
		b.timer.Stop()
	}
	if res != nil {
		b.abandon(res, ready)
	}
	cur.cancel()
	err := r.close(cur)
	r.b.gate.running.Add(-1)
	r.ended(cur)
	return err
}
