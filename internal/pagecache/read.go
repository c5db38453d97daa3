package pagecache

import (
	"context"
	"errors"
	"io"
	"time"

	"go.opentelemetry.io/otel/trace"

	"larder/internal/extent"
)

// maxEmptyReads is how many Reads of a body in a row may return no bytes and no error.
const maxEmptyReads = 100

// maxRereads is how often a flight reads its range again after a body that was longer than the
// range. internal/bucket/retry cannot repeat that read, because it has already delivered the range
// when it could see the rest.
const maxRereads = 3

// deafGrace is how long after its deadline a read that ignores its context is abandoned.
const deafGrace = time.Second

// fly runs a flight to its end. Its span, if it is traced, ends when the body has been read.
func (r *Reader) fly(f *flight) {
	ctx, span := r.startRead(f)
	var err error
	defer func() {
		if v := recover(); v != nil {
			err = f.wrap(r.panics.Caught(v, "object", f.obj.Name, "offset", f.off))
			r.end(f, err)
		}
		if span != nil {
			endSpan(span, err)
		}
	}()
	err = r.acquireAndRead(ctx, f)
}

// acquireAndRead waits for bytes and a slot, and reads the range of a flight. The waiters of the
// flight have its error already.
func (r *Reader) acquireAndRead(ctx context.Context, f *flight) error {
	if ctx.Err() != nil {
		return nil // over before it began
	}
	// Bytes come before the slot, so that every slot in use belongs to a running read.
	n, err := r.inFlight.AcquireFor(ctx, f.queue, f.end-f.off)
	if err != nil {
		return err
	}
	defer r.inFlight.Release(n)
	if err := r.opts.Limiter.AcquireFor(ctx, f.queue); err != nil {
		err = f.wrap(err)
		r.end(f, err) // does nothing if the flight is over
		return err
	}
	defer r.opts.Limiter.Release()
	if f.span.IsValid() {
		trace.SpanFromContext(ctx).AddEvent("slot_acquired")
	}

	err = r.read(ctx, f)
	for err != nil && r.rereads(f, err) {
		err = r.read(ctx, f)
	}
	if err != nil {
		r.end(f, err)
	}
	return err
}

// read reads the range of a flight once.
func (r *Reader) read(ctx context.Context, f *flight) error {
	ctx, cancel := context.WithTimeout(ctx, r.opts.FlightTimeout)
	defer cancel()
	// A read that ignores its context must not hold up the waiters. One that heeds it has returned
	// by then.
	late := f.wrap(ErrTimeout)
	deadline := time.AfterFunc(r.opts.FlightTimeout+deafGrace, func() { r.end(f, late) })
	defer deadline.Stop()
	err := r.readPages(ctx, f)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return late
	}
	return err
}

// rereads reports whether the flight is to read its range again: its body was longer than the
// range, and a request still waits for it. It retracts what the flight has published.
func (r *Reader) rereads(f *flight, err error) bool {
	if !errors.As(err, new(*LongBodyError)) || f.rereads == maxRereads {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.over {
		return false
	}
	f.rereads++
	// The published pages are not of the range either. They must not be mixed with pages that are.
	f.pages, f.ready = make([][]byte, len(f.pages)), 0
	m := r.metricsOf(f)
	m.readRetries.Inc()
	m.fetched.Add(float64(len(f.pages)))
	m.fetchedBytes.Add(float64(f.end - f.off))
	return true
}

// wrap returns err as a *ReadError that names the read.
func (f *flight) wrap(err error) error {
	return &ReadError{
		Object: f.obj.Name, Off: f.off, Len: f.end - f.off, Reads: 1 + f.rereads, Err: err,
	}
}

// readPages reads the bytes of the flight's pages and publishes the pages as they arrive.
func (r *Reader) readPages(ctx context.Context, f *flight) error {
	off, length := f.off, f.end-f.off
	m := r.metricsOf(f)
	m.reads.Inc()
	m.readBytes.Observe(float64(length))
	start := time.Now()
	var first time.Time // when the first byte came
	watched, seen := extent.Watch(ctx)
	body, err := r.bucket.GetRange(watched, f.obj.Name, off, length)
	if body != nil {
		defer body.Close()
	}
	if changed := r.changed(f, seen); changed != nil {
		return changed
	}
	if err != nil {
		return f.wrap(r.classify(err))
	}
	buffers := r.buffersFor(length)
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	a := assembly{f: f, buf: *buf, pageSize: r.PageSize(), left: length}
	empty := 0
	for a.left > 0 {
		n, err := body.Read(a.space())
		if n > 0 && first.IsZero() {
			first = time.Now()
			r.firstByte.Observe(first.Sub(start))
		}
		a.advance(n)
		if a.left == 0 {
			break
		}
		switch {
		case errors.Is(err, io.EOF):
			return &ShortObjectError{
				Object: f.obj.Name, Off: off, Want: length, Got: length - a.left,
			}
		case err != nil:
			return f.wrap(r.classify(err))
		case n > 0:
			empty = 0
		default:
			if empty++; empty == maxEmptyReads {
				return f.wrap(io.ErrNoProgress)
			}
		}
		if from, to := a.cut(); to > from {
			// Another request may have continued the body.
			if err := r.changed(f, seen); err != nil {
				return err
			}
			if !r.publish(f, from, to) {
				return nil // over
			}
		}
	}
	r.opts.Costs.Observe(first.Sub(start), time.Since(first), length)
	// The last pages are published after the end of the body: a body that continues is not the
	// requested range.
	from, to := a.cut()
	if err := r.changed(f, seen); err != nil {
		return err
	}
	var more [1]byte
	for range maxEmptyReads {
		n, err := body.Read(more[:])
		if n > 0 {
			r.retract(f, from)
			return &LongBodyError{Object: f.obj.Name, Off: off, Want: length}
		}
		if err != nil {
			break // the bytes are complete: an error does not matter
		}
	}
	r.publish(f, from, to)
	return nil
}

// changed returns an error if the bucket has stated another size of the object than the flight
// assumes.
func (r *Reader) changed(f *flight, seen *extent.Seen) error {
	e, ok := seen.Extent()
	if !ok || e.Size == f.obj.Size || r.sizesIgnored.Load() {
		return nil
	}
	return f.wrap(&ChangedError{Object: f.obj.Name, Want: f.obj.Size, Got: e.Size})
}

// classify marks an error of the bucket that says that the object does not exist. It must see the
// error before anything wraps it.
func (r *Reader) classify(err error) error {
	if r.bucket.IsObjNotFoundErr(err) {
		return notFoundError{cause: err}
	}
	return err
}

// retract drops the first n pages of a flight from the cache.
func (r *Reader) retract(f *flight, n int) {
	for i := range n {
		if key, ok := f.obj.cacheKey(f.read.first+int64(i), r.shift); ok {
			r.cache.Del(key)
		}
	}
}

// assembly cuts a body that passes through a buffer into pages.
//
// INVARIANT: len(buf) is a multiple of the page size, and pages start at multiples of it.
// buf[taken:filled] is not in a page yet.
type assembly struct {
	f             *flight
	buf           []byte
	pageSize      int
	left          int64 // bytes to come
	taken, filled int
	pages         int // cut so far
}

// space returns the memory for the next bytes, at most as many as are missing.
func (a *assembly) space() []byte {
	if a.filled == len(a.buf) && a.taken == a.filled {
		a.filled, a.taken = 0, 0
	}
	s := a.buf[a.filled:]
	return s[:min(int64(len(s)), a.left)]
}

func (a *assembly) advance(n int) {
	a.filled += n
	a.left -= int64(n)
}

// cut copies the complete pages from the buffer, each of its exact size, and returns their range.
func (a *assembly) cut() (from, to int) {
	from = a.pages
	for a.filled-a.taken >= a.pageSize || (a.left == 0 && a.filled > a.taken) {
		part := a.buf[a.taken:min(a.taken+a.pageSize, a.filled)]
		b := make([]byte, len(part))
		copy(b, part)
		a.f.pages[a.pages] = b
		a.pages++
		a.taken += len(part)
	}
	return from, a.pages
}
