package retry

import (
	"context"
	"io"
	"sync"

	"github.com/thanos-io/objstore"

	"larder/internal/bucket/hedge"
	"larder/internal/panics"
)

// Bucket is an object store client whose reads and listings survive faults. What
// writes is the client's own.
type Bucket struct {
	objstore.Bucket

	opts    Options
	panics  *panics.Guard
	budget  *budget
	metrics *metrics
	buffers *sync.Pool // of *[]byte, step long
	wholes  *wholes
}

// Wrap returns the client with operations that are repeated. Closing it closes
// the client.
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

// WithExpectedErrs returns the same bucket, with the same budget, whose client does not count
// expected errors as failures. A client that counts nothing stays as it is.
func (b *Bucket) WithExpectedErrs(expected objstore.IsOpFailureExpectedFunc) objstore.Bucket {
	counted, ok := b.Bucket.(objstore.InstrumentedBucket)
	if !ok {
		return b
	}
	c := *b
	c.Bucket = counted.WithExpectedErrs(expected)
	return &c
}

// ReaderWithExpectedErrs is WithExpectedErrs for those who only read.
func (b *Bucket) ReaderWithExpectedErrs(
	expected objstore.IsOpFailureExpectedFunc,
) objstore.BucketReader {
	return b.WithExpectedErrs(expected)
}

// GetRange reads a range, length -1 being all that follows off. The body must be
// closed.
func (b *Bucket) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	r := &body{t: b.begin(ctx, name), off: off, length: length}
	if err := r.open(); err != nil {
		return nil, err
	}
	return r, nil
}

// Get reads an object. The body must be closed.
func (b *Bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.getWhole(b.begin(ctx, name))
}

// Exists reports whether there is such an object.
func (b *Bucket) Exists(ctx context.Context, name string) (bool, error) {
	return call(
		b.begin(ctx, name),
		func(ctx context.Context) (bool, error) { return b.Bucket.Exists(ctx, name) },
	)
}

// Attributes returns an object's size and time.
func (b *Bucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	return call(
		b.begin(ctx, name),
		func(ctx context.Context) (objstore.ObjectAttributes, error) { return b.Bucket.Attributes(ctx, name) },
	)
}

// Iter calls f for the names in a folder.
func (b *Bucket) Iter(
	ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption,
) error {
	return b.list(
		b.begin(ctx, dir),
		func(o objstore.IterObjectAttributes) error { return f(o.Name) },
		func(ctx context.Context, f func(objstore.IterObjectAttributes) error) error {
			return b.Bucket.Iter(
				ctx,
				dir,
				func(name string) error { return f(objstore.IterObjectAttributes{Name: name}) },
				options...)
		},
	)
}

// IterWithAttributes calls f for what is in a folder.
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

// IsObjNotFoundErr reports whether an error that came from this bucket says that
// there is no such object.
func (b *Bucket) IsObjNotFoundErr(err error) bool { return b.Bucket.IsObjNotFoundErr(raw(err)) }

// IsAccessDeniedErr reports whether it says that access is denied.
func (b *Bucket) IsAccessDeniedErr(err error) bool { return b.Bucket.IsAccessDeniedErr(raw(err)) }

// contained calls the client.
func (b *Bucket) contained(object string, off int64, f func() error) error {
	return hedge.Contained(b.panics, object, off, f)
}
