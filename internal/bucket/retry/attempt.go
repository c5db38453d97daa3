package retry

import (
	"context"
	"io"
	"time"
)

const (
	// step bounds one Read of a body, so that progress can be seen: some clients
	// return only when they have filled the buffer.
	step = 64 << 10
	// maxEmptyReads is how often in a row a body may return nothing at all.
	maxEmptyReads = 100
)

// attempt is one request for a body. A goroutine of its own asks the client.
type attempt struct {
	b      *Bucket
	object string
	off    int64
	caller context.Context
	ctx    context.Context
	cancel context.CancelFunc

	opened chan error // one, when the client has answered; body is there if it is nil
	body   io.ReadCloser
	buf    *[]byte       // of step bytes, see doc.go
	asked  chan int      // bytes that are wanted, at most one
	got    chan received // what came of it
	left   chan struct{} // closed when nothing is wanted any more
	ended  chan struct{} // closed when the body was closed

	// Of the caller's goroutine.
	answered bool // opened was received
	reading  bool // asked and not got
}

// received is the outcome of one Read.
type received struct {
	n   int
	err error
}

// start sends a request.
func (t *tries) start(off int64, open func(ctx context.Context) (io.ReadCloser, error)) *attempt {
	a := &attempt{
		b: t.b, object: t.object, off: off, caller: t.ctx,
		opened: make(chan error, 1), asked: make(chan int, 1), got: make(chan received, 1),
		left: make(chan struct{}), ended: make(chan struct{}),
	}
	a.ctx, a.cancel = context.WithCancel(t.ctx)
	go a.run(open)
	return a
}

func (a *attempt) run(open func(ctx context.Context) (io.ReadCloser, error)) {
	defer close(a.ended)
	defer a.cancel()
	err := a.contained(func() (err error) {
		a.body, err = open(a.ctx)
		return err
	})
	if err != nil {
		// Some clients return a body beside the error, GCS's one whose Close panics.
		a.opened <- err
		return
	}
	a.buf = a.b.buffers.Get().(*[]byte)
	defer a.b.buffers.Put(a.buf)
	defer func() { _ = a.contained(a.body.Close) }() // what was wanted of it was read
	a.opened <- nil
	for {
		select {
		case n := <-a.asked:
			a.got <- a.read((*a.buf)[:n])
		case <-a.left:
			return
		}
	}
}

func (a *attempt) read(p []byte) (r received) {
	for range maxEmptyReads {
		r.err = a.contained(func() (err error) {
			r.n, err = a.body.Read(p)
			return err
		})
		if r.n > 0 || r.err != nil {
			return r
		}
	}
	return received{err: io.ErrNoProgress}
}

func (a *attempt) contained(f func() error) error { return a.b.contained(a.object, a.off, f) }

// await waits for the answer, and no longer than d. A request without one is
// left.
func (a *attempt) await(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	var err error
	select {
	case err = <-a.opened:
	case <-timer.C:
		err = errNoAnswer
	case <-a.caller.Done():
		err = a.caller.Err()
	}
	a.answered = err == nil
	if err != nil {
		a.leave(false)
	}
	return err
}

// next returns up to n bytes of the body, or why there are none; both at once
// when the body ended with them. The bytes are good until next is called again or
// the attempt is left.
func (a *attempt) next(n int, d time.Duration) ([]byte, error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	a.reading = true
	a.asked <- min(n, step)
	select {
	case r := <-a.got:
		a.reading = false
		return (*a.buf)[:r.n], r.err
	case <-timer.C:
		return nil, errStalled
	case <-a.caller.Done():
		return nil, a.caller.Err()
	}
}

// leave ends the request, and waits until the body is closed unless the client
// is at work. complete: the body was read to its end, and its connection can be
// used again.
func (a *attempt) leave(complete bool) {
	select {
	case <-a.left:
		return
	default:
	}
	if !complete || a.reading {
		a.cancel() // before Close: a body must not be read to its end
	}
	close(a.left)
	if a.answered && !a.reading {
		<-a.ended
	}
}
