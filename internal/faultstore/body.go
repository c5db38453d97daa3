package faultstore

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/thanos-io/objstore"
)

// unknownSize is used for a body whose client does not tell its size.
const unknownSize = 4096

// body is a body with a fault at byte at.
type body struct {
	io.ReadCloser
	ctx   context.Context
	fault Fault
	at    int64
	pos   int64
	over  bool // a stalled body has gone on, or a long one has passed its end

	once   sync.Once
	closed chan struct{}
}

// newBody breaks a body of which length bytes were requested, all of them if negative.
func newBody(ctx context.Context, r io.ReadCloser, f Fault, length int64) *body {
	if n, err := objstore.TryToGetSize(r); err == nil {
		length = n
	} else if length < 0 {
		length = unknownSize
	}
	return &body{ReadCloser: r, ctx: ctx, fault: f, at: f.At(length), closed: make(chan struct{})}
}

// ObjectSize returns the size that the client tells: a broken body does not announce its fault.
func (b *body) ObjectSize() (int64, error) { return objstore.TryToGetSize(b.ReadCloser) }

func (b *body) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.ReadCloser.Close()
}

func (b *body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	switch b.fault.Kind {
	case FlippedBit:
		n, err := b.ReadCloser.Read(p)
		if i := b.at - b.pos; i >= 0 && i < int64(n) {
			p[i] ^= b.fault.Bit()
		}
		b.pos += int64(n)
		return n, err
	case LongBody:
		if !b.over {
			n, err := b.ReadCloser.Read(p)
			if !errors.Is(err, io.EOF) {
				return n, err
			}
			b.over = true
			if n > 0 {
				return n, nil
			}
		}
		if b.pos > b.at {
			return 0, io.EOF
		}
		n := int(min(int64(len(p)), b.at+1-b.pos))
		for i := range p[:n] {
			p[i] = byte(i)
		}
		b.pos += int64(n)
		return n, nil
	}
	if b.pos < b.at || b.over {
		if !b.over {
			p = p[:min(int64(len(p)), b.at-b.pos)]
		}
		n, err := b.ReadCloser.Read(p)
		b.pos += int64(n)
		return n, err
	}
	switch b.fault.Kind {
	case TruncatedBody:
		return 0, io.ErrUnexpectedEOF
	case ShortBody:
		return 0, io.EOF
	case Reset:
		return 0, reset()
	}
	if err := b.stall(); err != nil {
		return 0, err
	}
	b.over = true
	return b.Read(p)
}

// stall waits for the fault's delay, or for ever if it has none, and ends early with the read.
func (b *body) stall() error {
	ctx := b.ctx
	if b.fault.Delay > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.fault.Delay)
		defer cancel()
	}
	select {
	case <-ctx.Done():
		return b.ctx.Err()
	case <-b.closed:
		return errors.New("read of a closed body")
	}
}
