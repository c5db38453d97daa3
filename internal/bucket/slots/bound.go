package slots

import (
	"context"
	"io"
	"sync"

	"github.com/thanos-io/objstore"
)

// Bound returns the bucket with every operation in a slot. A read holds its slot until its body is
// closed, a listing until it ends. The callers' deadlines include the wait for a slot.
//
// INVARIANT: the callback of a listing does not use the bucket.
func Bound(b objstore.InstrumentedBucket, l *Limiter) objstore.InstrumentedBucket {
	return &instrumented{bound: bound{Bucket: b, limiter: l}, whole: b}
}

// instrumented is a bound bucket whose metrics accept expected errors.
type instrumented struct {
	bound
	whole objstore.InstrumentedBucket
}

func (b *instrumented) WithExpectedErrs(expected objstore.IsOpFailureExpectedFunc) objstore.Bucket {
	return &bound{Bucket: b.whole.WithExpectedErrs(expected), limiter: b.limiter}
}

func (b *instrumented) ReaderWithExpectedErrs(
	expected objstore.IsOpFailureExpectedFunc,
) objstore.BucketReader {
	return b.WithExpectedErrs(expected)
}

// bound is a bucket whose operations acquire a slot each.
type bound struct {
	objstore.Bucket
	limiter *Limiter
}

func (b *bound) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.read(ctx, func() (io.ReadCloser, error) { return b.Bucket.Get(ctx, name) })
}

func (b *bound) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	return b.read(
		ctx, func() (io.ReadCloser, error) { return b.Bucket.GetRange(ctx, name, off, length) },
	)
}

func (b *bound) read(
	ctx context.Context, open func() (io.ReadCloser, error),
) (io.ReadCloser, error) {
	if err := b.limiter.Acquire(ctx); err != nil {
		return nil, err
	}
	opened := body{release: sync.OnceFunc(b.limiter.Release)}
	defer func() {
		if opened.ReadCloser == nil {
			opened.release()
		}
	}()
	r, err := open()
	if err != nil {
		return nil, err
	}
	opened.ReadCloser = r
	return &opened, nil
}

func (b *bound) Iter(
	ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption,
) error {
	return b.within(ctx, func() error { return b.Bucket.Iter(ctx, dir, f, options...) })
}

func (b *bound) IterWithAttributes(
	ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error,
	options ...objstore.IterOption,
) error {
	return b.within(
		ctx, func() error { return b.Bucket.IterWithAttributes(ctx, dir, f, options...) },
	)
}

func (b *bound) Exists(ctx context.Context, name string) (there bool, err error) {
	err = b.within(ctx, func() error {
		there, err = b.Bucket.Exists(ctx, name)
		return err
	})
	return there, err
}

func (b *bound) Attributes(
	ctx context.Context, name string,
) (a objstore.ObjectAttributes, err error) {
	err = b.within(ctx, func() error {
		a, err = b.Bucket.Attributes(ctx, name)
		return err
	})
	return a, err
}

func (b *bound) within(ctx context.Context, f func() error) error {
	if err := b.limiter.Acquire(ctx); err != nil {
		return err
	}
	defer b.limiter.Release()
	return f()
}

// body releases the slot of a read when it is closed.
type body struct {
	io.ReadCloser
	release func()
}

// ObjectSize returns the number of bytes of the body, if the client knows it.
func (b *body) ObjectSize() (int64, error) { return objstore.TryToGetSize(b.ReadCloser) }

func (b *body) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}
