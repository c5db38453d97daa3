package block

import (
	"context"

	"github.com/thanos-io/objstore"
)

// Lister tells whether a block is still in the bucket.
type Lister interface {
	// Iter calls f with the name of every object in dir.
	Iter(ctx context.Context, dir string, f func(name string) error) error
	// Exists reports whether the object exists.
	Exists(ctx context.Context, name string) (bool, error)
}

// BucketLister is the Lister of a bucket.
type BucketLister struct{ Bucket objstore.BucketReader }

var _ Lister = BucketLister{}

// Iter implements Lister.
func (l BucketLister) Iter(ctx context.Context, dir string, f func(name string) error) error {
	return l.Bucket.Iter(ctx, dir, f)
}

// Exists implements Lister.
func (l BucketLister) Exists(ctx context.Context, name string) (bool, error) {
	return l.Bucket.Exists(ctx, name)
}
