package faultstore

import (
	"context"
	"io"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/thanos-io/objstore"
)

// Bucket is an object store client whose reads meet faults and are recorded. Its writes are those
// of the client.
type Bucket struct {
	objstore.Bucket
	faults *Faults
	rec    recorder
}

// Wrap returns the client with faults, nil for none. Closing it closes the client.
func Wrap(client objstore.Bucket, faults *Faults) *Bucket {
	return &Bucket{Bucket: client, faults: faults}
}

// meet applies the fault that was drawn for a call. With ok, the fault is one of the body or within
// the listing, which the caller applies.
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

// wait waits for d, or until the context ends.
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
	c := Call{Op: objstore.OpGet, Name: name, Length: -1}
	return b.read(ctx, c, func() (io.ReadCloser, error) { return b.Bucket.Get(ctx, name) })
}

// GetRange reads a range of an object.
func (b *Bucket) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	c := Call{Op: objstore.OpGetRange, Name: name, Off: off, Length: length}
	return b.read(ctx, c, func() (io.ReadCloser, error) {
		return b.Bucket.GetRange(ctx, name, off, length)
	})
}

// read reads with the script, or with open and the fault that was drawn.
func (b *Bucket) read(
	ctx context.Context, c Call, open func() (io.ReadCloser, error),
) (io.ReadCloser, error) {
	if script, n := b.rec.note(c); script != nil {
		if body, err, answered := script(ctx, c, n); answered {
			return b.rec.counted(body), err
		}
	}
	f, broken, err := b.meet(ctx, c.Op, c.Name, c.Off)
	if err != nil {
		return nil, err
	}
	r, err := open()
	if err != nil {
		return r, err
	}
	if broken {
		r = newBody(ctx, r, f, c.Length)
	}
	return b.rec.counted(r), nil
}

// endOfListing returns the error of a listing that was cut short.
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
	b.rec.note(Call{Op: objstore.OpIter, Name: dir})
	f, broken, err := b.meet(ctx, objstore.OpIter, dir, 0)
	if err != nil {
		return err
	}
	if !broken {
		return b.Bucket.Iter(ctx, dir, each, options...)
	}
	var names []string
	collect := func(name string) error { names = append(names, name); return nil }
	if err := b.Bucket.Iter(ctx, dir, collect, options...); err != nil {
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
	b.rec.note(Call{Op: objstore.OpIter, Name: dir})
	f, broken, err := b.meet(ctx, objstore.OpIter, dir, 0)
	if err != nil {
		return err
	}
	if !broken {
		return b.Bucket.IterWithAttributes(ctx, dir, each, options...)
	}
	var all []objstore.IterObjectAttributes
	collect := func(a objstore.IterObjectAttributes) error { all = append(all, a); return nil }
	if err := b.Bucket.IterWithAttributes(ctx, dir, collect, options...); err != nil {
		return err
	}
	for _, a := range all[:f.At(int64(len(all)))] {
		if err := each(a); err != nil {
			return err
		}
	}
	return f.endOfListing(dir)
}

// Exists reports whether the object exists.
func (b *Bucket) Exists(ctx context.Context, name string) (bool, error) {
	b.rec.note(Call{Op: objstore.OpExists, Name: name})
	if f, _, err := b.meet(ctx, objstore.OpExists, name, 0); f.Kind == Vanished {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return b.Bucket.Exists(ctx, name)
}

// Attributes returns the size and time of an object.
func (b *Bucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	b.rec.note(Call{Op: objstore.OpAttributes, Name: name})
	if _, _, err := b.meet(ctx, objstore.OpAttributes, name, 0); err != nil {
		return objstore.ObjectAttributes{}, err
	}
	return b.Bucket.Attributes(ctx, name)
}

// IsObjNotFoundErr recognises the client's own errors and those of Vanished, the latter only
// unwrapped.
func (b *Bucket) IsObjNotFoundErr(err error) bool {
	return minio.ToErrorResponse(err).Code == "NoSuchKey" || b.Bucket.IsObjNotFoundErr(err)
}

// IsAccessDeniedErr recognises the client's own errors and those of AccessDenied, the latter only
// unwrapped.
func (b *Bucket) IsAccessDeniedErr(err error) bool {
	return minio.ToErrorResponse(err).Code == "AccessDenied" || b.Bucket.IsAccessDeniedErr(err)
}
