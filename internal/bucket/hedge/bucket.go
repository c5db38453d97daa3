package hedge

import (
	"context"
	"io"

	"github.com/thanos-io/objstore"

	"larder/internal/panics"
)

const (
	smallRange  = 64 << 10
	middleRange = 1 << 20
)

// Bucket is an object store client whose reads are hedged. All other operations are those of the
// client.
type Bucket struct {
	objstore.Bucket

	opts                         Options
	panics                       *panics.Guard
	gate                         *gate
	metrics                      *metrics
	small, middle, large, object *class
}

// Wrap returns the client with hedged reads. Closing it closes the client.
func Wrap(client objstore.Bucket, opts Options) *Bucket {
	asked := opts.Quantile
	opts = opts.withDefaults()
	if asked > 0 && asked < opts.Quantile {
		opts.Logger.Info(
			"hedge quantile raised: a lower one would spend the budget on reads that are not the slowest",
			"quantile", asked, "used", opts.Quantile,
		)
	}
	b := &Bucket{
		Bucket: client,
		opts:   opts,
		panics: panics.New("bucket", opts.Logger, opts.Registerer),
		gate:   newGate(opts),
		small:  newClass("64KiB", opts),
		middle: newClass("1MiB", opts),
		large:  newClass("larger", opts),
		object: newClass("object", opts),
	}
	b.metrics = newMetrics(opts.Registerer, b)
	return b
}

func (b *Bucket) classes() []*class { return []*class{b.small, b.middle, b.large, b.object} }

// GetRange reads a range. Length -1 reads from off to the end. The caller must close the body.
func (b *Bucket) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	c := b.large
	switch {
	case length < 0:
	case length <= smallRange:
		c = b.small
	case length <= middleRange:
		c = b.middle
	}
	return b.read(&read{b: b, ctx: ctx, name: name, off: off, length: length, class: c})
}

// Get reads an object. The caller must close the body.
func (b *Bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.read(&read{b: b, ctx: ctx, name: name, length: -1, object: true, class: b.object})
}
