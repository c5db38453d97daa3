package retry

import (
	"context"
	"io"
	"sync"

	"github.com/thanos-io/objstore"

	"larder/internal/bucket/hedge"
	"larder/internal/panics"
)

// Bucket is an object store client whose reads and listings survive faults. Its writes are those of
// the client.
type Bucket struct {
	objstore.Bucket

	opts    Options
	panics  *panics.Guard
	budget  *budget
	metrics *metrics
	buffers *sync.Pool // of *[]byte, step long
	wholes  *wholes
}

// Wrap returns the client with retries. Closing it closes the client.
func Wrap(client objstore.Bucket, opts Options) *Bucket {
	opts = opts.withDefaults()
	b := &Bucket{
		Bucket: client,
		opts:   opts,
		panics: panics.New("bucket", opts.Logger, opts.Registerer),
		budget: newBudget(opts),
	}
	b.wholes = &wholes{limit: opts.WholeBytes}
	b.metrics = newMetrics(opts.Registerer, b.budget)
	b.buffers = &sync.Pool{New: func() any { p := make([]byte, step); return &p }}
	return b
}

// WithExpectedErrs returns the bucket with the same budget and a client that does not count
// expected errors as failures. If the client counts nothing, it returns b.
func (b *Bucket) WithExpectedErrs(expected objstore.IsOpFailureExpectedFunc) objstore.Bucket {
	counted, ok := b.Bucket.(objstore.InstrumentedBucket)
	if !ok {
		return b
	}
	c := *b
	c.Bucket = counted.WithExpectedErrs(expected)
	return &c
}

// ReaderWithExpectedErrs does the same as WithExpectedErrs for callers that only read.
func (b *Bucket) ReaderWithExpectedErrs(
	expected objstore.IsOpFailureExpectedFunc,
) objstore.BucketReader {
	return b.WithExpectedErrs(expected)
}

// GetRange reads a range. Length -1 reads from off to the end. The caller must close the body.
func (b *Bucket) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	r := &body{t: b.begin(ctx, name), off: off, length: length}
	if err := r.open(); err != nil {
		return nil, err
	}
	return r, nil
}

// Get reads an object. The caller must close the body.
func (b *Bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.getWhole(b.begin(ctx, name))
}

// Exists reports whether the object exists.
func (b *Bucket) Exists(ctx context.Context, name string) (bool, error) {
	return call(
		b.begin(ctx, name),
		func(ctx context.Context) (bool, error) { return b.Bucket.Exists(ctx, name) },
	)
}

// Attributes returns the size and time of an object.
func (b *Bucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	return call(
		b.begin(ctx, name),
		func(ctx context.Context) (objstore.ObjectAttributes, error) {
			return b.Bucket.Attributes(ctx, name)
		},
	)
}

// Iter calls f with each name in a folder.
func (b *Bucket) Iter(
	ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption,
) error {
	return b.list(
		b.begin(ctx, dir),
		func(o objstore.IterObjectAttributes) error { return f(o.Name) },
		func(ctx context.Context, f func(objstore.IterObjectAttributes) error) error {
			each := func(name string) error { return f(objstore.IterObjectAttributes{Name: name}) }
			return b.Bucket.Iter(ctx, dir, each, options...)
		},
	)
}

// IterWithAttributes calls f with each entry of a folder.
func (b *Bucket) IterWithAttributes(
	ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error,
	options ...objstore.IterOption,
) error {
	return b.list(
		b.begin(ctx, dir),
		f,
		func(ctx context.Context, f func(objstore.IterObjectAttributes) error) error {
			return b.Bucket.IterWithAttributes(ctx, dir, f, options...)
		},
	)
}

// IsObjNotFoundErr reports whether an error of this bucket says that the object does not exist.
func (b *Bucket) IsObjNotFoundErr(err error) bool { return b.Bucket.IsObjNotFoundErr(raw(err)) }

// IsAccessDeniedErr reports whether an error of this bucket says that access is denied.
func (b *Bucket) IsAccessDeniedErr(err error) bool { return b.Bucket.IsAccessDeniedErr(raw(err)) }

// contained calls the client and returns its panic as an error.
func (b *Bucket) contained(object string, off int64, f func() error) error {
	return hedge.Contained(b.panics, object, off, f)
}
