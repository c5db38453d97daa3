package indexheader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/thanos-io/objstore"
	"golang.org/x/sync/semaphore"

	"larder/internal/panics"
)

// Bucket is the part of an object store client that a Manager needs.
type Bucket interface {
	GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error)
	Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error)
	IsObjNotFoundErr(err error) bool
}

// fetcher reads ranges of objects. It returns exactly the requested bytes, or an error.
type fetcher struct {
	bkt      Bucket
	panics   *panics.Guard
	partSize int64
	timeout  time.Duration // of one read
	page     int64         // see Options.PageSize
	onRead   func(Read)

	// bytes bounds the parts of all running builds. INVARIANT: the parts of a stream acquire and
	// release it in their order, so a stream waits only for streams that can continue.
	bytes *semaphore.Weighted
	pool  sync.Pool // of *[]byte of partSize bytes
}

var (
	// errLength is the error for a body that is shorter or longer than the requested range.
	errLength = errors.New("the object store sent another length than requested")
	// errTooLong is the error for a longer body.
	errTooLong = fmt.Errorf("%w: more bytes", errLength)
)

// maxReads is how many times a range is read if its body is longer than the range.
// internal/bucket/retry cannot repeat that read, because it has delivered the range before it can
// see the rest.
const maxReads = 4

// read fills b with the bytes of an object from off on.
func (f *fetcher) read(ctx context.Context, name string, off int64, b []byte) error {
	for n := 1; ; n++ {
		err := f.call(ctx, func(ctx context.Context) error { return f.readOnce(ctx, name, off, b) })
		if err == nil {
			return nil
		}
		if n == maxReads || ctx.Err() != nil || !errors.Is(err, errTooLong) {
			return fmt.Errorf("object %s, %d bytes at offset %d: %w", name, len(b), off, err)
		}
	}
}

func (f *fetcher) readOnce(ctx context.Context, name string, off int64, b []byte) error {
	rc, err := f.bkt.GetRange(ctx, name, off, int64(len(b)))
	if err != nil {
		// Some stores return a reader with the error.
		if rc != nil {
			rc.Close()
		}
		return f.classify(err)
	}
	defer rc.Close()
	n, err := io.ReadFull(rc, b)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: only %d bytes", errLength, n)
	default:
		return f.classify(err)
	}
	// Reading to the end detects a store that ignores ranges, and lets the connection be reused.
	var more [1]byte
	if n, _ := io.ReadFull(rc, more[:]); n > 0 {
		return errTooLong
	}
	return nil
}

// classify must see an error of the bucket unwrapped: some stores do not recognise their own errors
// once they are wrapped.
func (f *fetcher) classify(err error) error {
	if f.bkt.IsObjNotFoundErr(err) {
		return ErrNotFound
	}
	return err
}

// size asks the bucket for the size of an object.
func (f *fetcher) size(ctx context.Context, name string) (int64, error) {
	var size int64
	err := f.call(ctx, func(ctx context.Context) error {
		a, err := f.bkt.Attributes(ctx, name)
		if err != nil {
			return fmt.Errorf("attributes of object %s: %w", name, f.classify(err))
		}
		size = a.Size
		return nil
	})
	return size, err
}

// call makes one call to the bucket, bounded by the fetcher's timeout. It returns a panic of the
// client as an error.
func (f *fetcher) call(ctx context.Context, do func(context.Context) error) error {
	one, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	err := panics.Contained(func() error { return do(one) })()
	if panicked := f.panics.Note(err); err == nil || panicked || errors.Is(err, ErrNotFound) ||
		ctx.Err() == nil {
		return err
	}
	return ended(ctx, err)
}

// ended adds the cause of the end of ctx to err.
func ended(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// part is one piece of a stream: bytes that have been read already, or a range to read.
type part struct {
	off  int64
	size int64
	// before and after are bytes at both ends of the range that are not of the stream. They
	// complete pages.
	before, after int64
	data          []byte
	buf           *[]byte // pooled memory of data
	held          bool    // size is acquired from fetcher.bytes
	err           error
	ready         chan struct{} // closed when data or err is set; nil if data was read before
}

// stream reads consecutive ranges of an object in parts, ahead of its consumer.
//
// One goroutine starts the reads in order, and each read has a goroutine. All have ended when close
// returns.
type stream struct {
	f      *fetcher
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	parts  []*part
	window chan struct{} // one element for each part that is read or waits for the consumer

	cur  int
	rest []byte // unread bytes of parts[cur], if open
	open bool
}

// start starts a stream of parts of an index, of which at most window are in memory at a time. rd
// describes the reads.
func (f *fetcher) start(ctx context.Context, rd Read, parts []*part, window int) *stream {
	s := &stream{f: f, parts: parts, window: make(chan struct{}, window)}
	s.ctx, s.cancel = context.WithCancel(ctx)
	for _, p := range parts {
		if p.data == nil {
			p.ready = make(chan struct{})
		}
	}
	s.wg.Go(func() {
		for _, p := range parts {
			if p.ready == nil {
				continue
			}
			select {
			case s.window <- struct{}{}:
			case <-s.ctx.Done():
				return
			}
			if s.f.bytes.Acquire(s.ctx, p.size) != nil {
				return
			}
			p.held = true
			s.wg.Go(func() {
				defer close(p.ready)
				b := f.buffer(p)
				p.err = f.read(s.ctx, rd.Source.IndexObject, p.off, b)
				if p.err == nil {
					f.tell(rd, p.off, b)
				}
				p.data = b[p.before : p.size-p.after]
			})
		}
	})
	return s
}

// tell passes on bytes that were read.
func (f *fetcher) tell(rd Read, off int64, b []byte) {
	if f.onRead == nil {
		return
	}
	rd.Off, rd.Bytes = off, b
	_ = f.panics.Do(func() error {
		f.onRead(rd)
		return nil
	})
}

// buffer returns memory for a part. Large parts use a pool, because a large index has hundreds of
// them.
func (f *fetcher) buffer(p *part) []byte {
	if p.size < f.partSize/2 {
		return make([]byte, p.size)
	}
	var ok bool
	if p.buf, ok = f.pool.Get().(*[]byte); !ok {
		b := make([]byte, f.partSize)
		p.buf = &b
	}
	return (*p.buf)[:p.size]
}

func (s *stream) release(p *part) {
	if p.ready == nil || !p.held {
		return
	}
	p.held, p.data = false, nil
	if p.buf != nil {
		s.f.pool.Put(p.buf)
		p.buf = nil
	}
	s.f.bytes.Release(p.size)
}

// Read implements io.Reader over the current run of parts.
func (s *stream) Read(b []byte) (int, error) {
	for {
		if len(s.rest) > 0 {
			n := copy(b, s.rest)
			s.rest = s.rest[n:]
			return n, nil
		}
		if s.open {
			s.next()
		}
		if s.cur >= len(s.parts) {
			return 0, io.EOF
		}
		p := s.parts[s.cur]
		if p.ready != nil {
			select {
			case <-p.ready:
			case <-s.ctx.Done():
				return 0, context.Cause(s.ctx)
			}
			if p.err != nil {
				return 0, p.err
			}
		}
		s.rest, s.open = p.data, true
	}
}

// next skips the rest of the current part.
func (s *stream) next() {
	p := s.parts[s.cur]
	s.release(p)
	s.cur++
	s.rest, s.open = nil, false
	if p.ready != nil {
		<-s.window
	}
}

// skipTo skips all bytes before part i, which are padding at the end of a section.
func (s *stream) skipTo(i int) error {
	for s.cur < i {
		if !s.open && s.parts[s.cur].ready != nil {
			select {
			case <-s.parts[s.cur].ready:
			case <-s.ctx.Done():
				return context.Cause(s.ctx)
			}
		}
		s.next()
	}
	return nil
}

// close cancels all reads and releases the parts of the stream.
func (s *stream) close() {
	s.cancel()
	s.wg.Wait()
	for _, p := range s.parts[s.cur:] {
		s.release(p)
	}
}
