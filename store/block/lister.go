package block

import (
	"context"
	"fmt"

	"github.com/thanos-io/objstore"

	"larder/internal/pagecache"
)

// Lister answers what meta.json leaves open: which objects a block has, and how large they are.
type Lister interface {
	// Iter calls f with the name of every object in dir.
	Iter(ctx context.Context, dir string, f func(name string) error) error
	// Size returns the size of an object in bytes, pagecache.ErrNotFound if there is no such object.
	Size(ctx context.Context, name string) (int64, error)
	// Exists reports whether there is such an object.
	Exists(ctx context.Context, name string) (bool, error)
}

// BucketLister is the Lister of a bucket.
type BucketLister struct{ Bucket objstore.BucketReader }

var _ Lister = BucketLister{}

// Iter implements Lister.
func (l BucketLister) Iter(ctx context.Context, dir string, f func(name string) error) error {
	return l.Bucket.Iter(ctx, dir, f)
}

// Size implements Lister.
func (l BucketLister) Size(ctx context.Context, name string) (int64, error) {
	a, err := l.Bucket.Attributes(ctx, name)
	if err != nil && l.Bucket.IsObjNotFoundErr(err) {
		return 0, fmt.Errorf("%w: %w", pagecache.ErrNotFound, err)
	}
	return a.Size, err
}

// Exists implements Lister.
func (l BucketLister) Exists(ctx context.Context, name string) (bool, error) {
	return l.Bucket.Exists(ctx, name)
}
