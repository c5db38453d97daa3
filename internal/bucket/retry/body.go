package retry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"

	"github.com/thanos-io/objstore"
)

// body is a range that is read by as many requests as necessary.
type body struct {
	t           *tries
	off, length int64 // length -1: to the end
	a           *attempt

	rest   []byte // in a's buffer, to be delivered
	pos    int64  // bytes delivered, rest included
	broken error  // why a ended before the range; applies once rest is delivered
	short  bool   // the request before a ended early without an error, and a has sent nothing yet
	err    error  // the final result, io.EOF included
	closed bool
}

// open sends requests until one is answered or none may follow.
func (b *body) open() error {
	for {
		err := b.request()
		if err == nil {
			return nil
		}
		if err := b.t.again(err, b.off); err != nil {
			return err
		}
	}
}

// request sends a request for the missing bytes.
func (b *body) request() error {
	off, length := b.off+b.pos, b.length
	if length >= 0 {
		length -= b.pos
	}
	b.a = b.t.start(off, func(ctx context.Context) (io.ReadCloser, error) {
		return b.t.b.Bucket.GetRange(ctx, b.t.object, off, length)
	})
	if err := b.a.await(b.t.patience(b.t.b.opts.FirstByte)); err != nil {
		return err
	}
	b.t.answered()
	return nil
}

// ObjectSize returns the number of bytes of the body, if the client knows it.
func (b *body) ObjectSize() (int64, error) { return objstore.TryToGetSize(b.a.body) }

func (b *body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if len(b.rest) > 0 {
			n := copy(p, b.rest)
			b.rest = b.rest[n:]
			return n, nil
		}
		if b.broken != nil {
			b.err = b.resume(b.broken)
			b.broken = nil
		}
		if b.err != nil {
			return 0, b.err
		}
		b.fill(len(p))
	}
}

// fill reads the next bytes of the range.
func (b *body) fill(n int) {
	got, err := b.a.next(n, b.t.patience(b.t.b.opts.Stall))
	if len(got) > 0 {
		b.rest = got
		b.pos += int64(len(got))
		b.short = false
		b.t.progressed()
	}
	switch {
	case err == nil:
	case b.length >= 0 && b.pos >= b.length, b.length < 0 && err == io.EOF:
		b.err = io.EOF // the range is complete: an error does not matter
	default:
		b.broken = err
	}
}

// resume continues the range with another request. It returns io.EOF if that shows that the object
// has no more bytes.
func (b *body) resume(why error) error {
	b.a.leave(false)
	reason := reasonBroken
	switch {
	case why == io.EOF:
		if b.short {
			return io.EOF
		}
		b.short, reason, why = true, reasonShort, io.ErrUnexpectedEOF
	case b.t.b.reasonOf(why) == "" || errors.Is(why, errStalled):
		reason = b.t.b.reasonOf(why)
	}
	for {
		if err := b.t.againFor(reason, why, b.off+b.pos); err != nil {
			return err
		}
		err := b.request()
		if err == nil {
			b.t.b.metrics.resumed.Add(float64(b.pos))
			return nil
		}
		if b.short && Unsatisfiable(err) {
			b.t.succeeded()
			return io.EOF
		}
		why, reason = err, b.t.b.reasonOf(err)
	}
}

// Close ends the read.
func (b *body) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	if b.err == nil || b.err == io.EOF {
		b.t.succeeded()
	}
	b.a.leave(b.err == io.EOF)
	return nil
}

// wholes is the account of whole objects that are in memory before they are delivered. Nothing
// waits for it.
type wholes struct {
	limit    int64
	reserved atomic.Int64
}

func (w *wholes) tryReserve(n int64) bool {
	if w.reserved.Add(n) > w.limit {
		w.reserved.Add(-n)
		return false
	}
	return true
}

func (w *wholes) release(n int64) { w.reserved.Add(-n) }

// maxWhole bounds the bytes of one object that are read before the first is delivered.
const maxWhole = 1 << 20

// getWhole reads an object. Unless it is too large, it reads the object to its end before it
// delivers the first byte.
func (b *Bucket) getWhole(t *tries) (io.ReadCloser, error) {
	for {
		w := &whole{t: t}
		err := w.request()
		if err == nil {
			return w, nil
		}
		w.release()
		if err := t.again(err, int64(len(w.data))); err != nil {
			return nil, err
		}
	}
}

// whole is an object that one request reads.
type whole struct {
	t    *tries
	a    *attempt // nil when data is the whole object
	data []byte
	size int64         // bytes reserved for data
	head *bytes.Reader // over data
	rest []byte        // bytes after data, in a's buffer
	end  error         // after rest
	done bool
}

func (w *whole) request() error {
	w.a = w.t.start(
		0,
		func(ctx context.Context) (io.ReadCloser, error) {
			return w.t.b.Bucket.Get(ctx, w.t.object)
		},
	)
	if err := w.a.await(w.t.patience(w.t.b.opts.FirstByte)); err != nil {
		return err
	}
	w.t.answered()
	for w.reserve() {
		got, err := w.next()
		w.data = append(w.data, got...)
		if err == io.EOF {
			w.a.leave(true)
			w.a = nil
			break
		}
		if err != nil {
			w.a.leave(false)
			return err
		}
	}
	w.head = bytes.NewReader(w.data)
	return nil
}

// reserve reserves memory for the next step of the object. It returns false if there is none or the
// object is large: the remaining bytes are then streamed.
func (w *whole) reserve() bool {
	need := int64(len(w.data)) + step
	need += need / 4 // append may allocate that much more than necessary
	switch {
	case len(w.data) >= maxWhole:
		return false
	case need <= w.size:
		return true
	}
	if !w.t.b.wholes.tryReserve(need - w.size) {
		return false
	}
	w.size = need
	return true
}

func (w *whole) release() {
	w.t.b.wholes.release(w.size)
	w.size = 0
}

func (w *whole) next() ([]byte, error) { return w.a.next(step, w.t.patience(w.t.b.opts.Stall)) }

// ObjectSize returns the size of the object, if it is known.
func (w *whole) ObjectSize() (int64, error) {
	if w.a == nil {
		return int64(len(w.data)), nil
	}
	return objstore.TryToGetSize(w.a.body)
}

func (w *whole) Read(p []byte) (int, error) {
	if w.head.Len() > 0 {
		return w.head.Read(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	for len(w.rest) == 0 {
		switch {
		case w.a == nil:
			return 0, io.EOF
		case w.end != nil:
			return 0, w.end
		}
		w.rest, w.end = w.next()
	}
	n := copy(p, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

// Close ends the read.
func (w *whole) Close() error {
	if w.done {
		return nil
	}
	w.done = true
	w.release()
	if w.end == nil || w.end == io.EOF {
		w.t.succeeded()
	}
	if w.a != nil {
		w.a.leave(w.end == io.EOF)
	}
	return nil
}
