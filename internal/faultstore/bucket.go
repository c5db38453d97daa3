package faultstore

import (
	"context"
	"io"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/thanos-io/objstore"
)

// Bucket is an object store client whose reads meet faults. What writes is the client's own.
type Bucket struct {
	objstore.Bucket
	faults *Faults
}

// Wrap returns the client with faults. Closing it closes the client.
func Wrap(client objstore.Bucket, faults *Faults) *Bucket {
	return &Bucket{Bucket: client, faults: faults}
}

// meet does to a call what was drawn for it. A fault of the body or within a listing is left to the
// caller, with ok.
func (b *Bucket) meet(
	ctx context.Context, op, name string, off int64,
) (f Fault, ok bool, err error) {
	f, ok = b.faults.Draw(op, name, off)
	if !ok {
		return f, false, ctx.Err()
	}
	switch {
	case f.Kind.InBody(),
		f.Kind == ListingError,
		f.Kind == ShortListing,
		f.Kind == Reset && (op == objstore.OpGet || op == objstore.OpGetRange):
		return f, true, nil
	case f.Kind == Reset:
		return f, false, inCall(name, reset())
	case f.Kind.NoListing():
		return f, false, inCall(name, errNoListing)
	case f.Kind == Timeout:
		<-ctx.Done()
		return f, false, inCall(name, ctx.Err())
	case f.Kind == SlowFirstByte:
		if err := wait(ctx, f.Delay); err != nil {
			return f, false, inCall(name, err)
		}
		return f, false, nil
	}
	r, _ := f.Kind.Response(name)
	return f, false, r
}

// wait waits, or ends with the context.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Get reads an object.
func (b *Bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	f, broken, err := b.meet(ctx, objstore.OpGet, name, 0)
	if err != nil {
		return nil, err
	}
	r, err := b.Bucket.Get(ctx, name)
	if err != nil || !broken {
		return r, err
	}
	return newBody(ctx, r, f, -1), nil
}

// GetRange reads a range of an object.
func (b *Bucket) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	f, broken, err := b.meet(ctx, objstore.OpGetRange, name, off)
	if err != nil {
		return nil, err
	}
	r, err := b.Bucket.GetRange(ctx, name, off, length)
	if err != nil || !broken {
		return r, err
	}
	return newBody(ctx, r, f, length), nil
}

// endOfListing is what a listing that was cut short returns.
func (f Fault) endOfListing(dir string) error {
	if r, ok := f.Kind.Response(dir); ok {
		return r
	}
	return nil
}

// Iter lists a folder.
func (b *Bucket) Iter(
	ctx context.Context, dir string, each func(name string) error, options ...objstore.IterOption,
) error {
	f, broken, err := b.meet(ctx, objstore.OpIter, dir, 0)
	if err != nil {
		return err
	}
	if !broken {
		return b.Bucket.Iter(ctx, dir, each, options...)
	}
	var names []string
	if err := b.Bucket.Iter(ctx, dir, func(name string) error { names = append(names, name); return nil }, options...); err != nil {
		return err
	}
	for _, name := range names[:f.At(int64(len(names)))] {
		if err := each(name); err != nil {
			return err
		}
	}
	return f.endOfListing(dir)
}

// IterWithAttributes lists a folder.
func (b *Bucket) IterWithAttributes(
	ctx context.Context, dir string, each func(objstore.IterObjectAttributes) error,
	options ...objstore.IterOption,
) error {
	f, broken, err := b.meet(ctx, objstore.OpIter, dir, 0)
	if err != nil {
		return err
	}
	if !broken {
		return b.Bucket.IterWithAttributes(ctx, dir, each, options...)
	}
	var all []objstore.IterObjectAttributes
	if err := b.Bucket.IterWithAttributes(ctx, dir, func(a objstore.IterObjectAttributes) error { all = append(all, a); return nil }, options...); err != nil {
		return err
	}
	for _, a := range all[:f.At(int64(len(all)))] {
		if err := each(a); err != nil {
			return err
		}
	}
	return f.endOfListing(dir)
}

// Exists tells whether there is an object.
func (b *Bucket) Exists(ctx context.Context, name string) (bool, error) {
	if f, _, err := b.meet(ctx, objstore.OpExists, name, 0); f.Kind == Vanished {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return b.Bucket.Exists(ctx, name)
}

// Attributes returns size and time of an object.
func (b *Bucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	if _, _, err := b.meet(ctx, objstore.OpAttributes, name, 0); err != nil {
		return objstore.ObjectAttributes{}, err
	}
	return b.Bucket.Attributes(ctx, name)
}

// IsObjNotFoundErr knows the client's own errors and those of Vanished, neither once wrapped.
func (b *Bucket) IsObjNotFoundErr(err error) bool {
	return minio.ToErrorResponse(err).Code == "NoSuchKey" || b.Bucket.IsObjNotFoundErr(err)
}

// IsAccessDeniedErr knows the client's own errors and those of AccessDenied, neither once wrapped.
func (b *Bucket) IsAccessDeniedErr(err error) bool {
	return minio.ToErrorResponse(err).Code == "AccessDenied" || b.Bucket.IsAccessDeniedErr(err)
}
