package retry

import (
	"context"
	"io"
	"time"
)

const (
	// step bounds one Read of a body in bytes. Some clients return only when they have filled the
	// buffer: with a larger one, a slow body would look stalled.
	step = 64 << 10
	// maxEmptyReads is how many Reads of a body in a row may return no bytes and no error.
	maxEmptyReads = 100
)

// attempt is one request for a body. It calls the client on a goroutine of its own.
type attempt struct {
	b      *Bucket
	object string
	off    int64
	caller context.Context
	ctx    context.Context
	cancel context.CancelFunc

	opened chan error // receives one value when the client has answered; if nil, body is set
	body   io.ReadCloser
	buf    *[]byte       // of step bytes, see doc.go
	asked  chan int      // number of bytes to read; capacity 1
	got    chan received // their outcome
	left   chan struct{} // closed when the attempt is abandoned
	ended  chan struct{} // closed when the body is closed

	// The fields below belong to the caller's goroutine.
	answered bool // opened has been received
	reading  bool // asked was sent and got not received yet
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
		// Some clients return a body with the error. The Close of GCS's panics.
		a.opened <- err
		return
	}
	a.buf = a.b.buffers.Get().(*[]byte)
	defer a.b.buffers.Put(a.buf)
	defer func() { _ = a.contained(a.body.Close) }() // the requested bytes have been read
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

// await waits for the answer for at most d. Without one it abandons the request.
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

// next returns up to n bytes of the body, or an error, or both when the body ended with these
// bytes. The bytes are valid until the next call of next or leave.
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

// leave abandons the request. It waits until the body is closed unless a call of the client runs.
// complete says that the body was read to its end, and its connection can be reused.
func (a *attempt) leave(complete bool) {
	select {
	case <-a.left:
		return
	default:
	}
	if !complete || a.reading {
		a.cancel() // before Close, which would otherwise read the body to its end
	}
	close(a.left)
	if a.answered && !a.reading {
		<-a.ended
	}
}
