package extent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/thanos-io/objstore"
)

// Extent is what the bucket says about an object.
type Extent struct {
	// Size is the size of the whole object in bytes.
	Size int64
	// Version differs between two contents of the object: its ETag, else the time of its last
	// change. "" if the bucket states neither.
	Version string
}

// Bucket is the part of an object store that Of needs.
type Bucket interface {
	Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error)
	GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error)
	IsObjNotFoundErr(err error) bool
}

// ErrNotFound is in the chain of Of's error for an object that the bucket does not have.
var ErrNotFound = errors.New("no such object")

// Of asks the bucket for the extent of an object: for its attributes, or, if that fails, with a
// ranged read of one byte. No error of a HEAD is final, because some proxies answer every HEAD with
// 400, 403 or 404.
func Of(ctx context.Context, b Bucket, name string) (Extent, error) {
	watched, seen := Watch(ctx)
	a, err := b.Attributes(watched, name)
	if err == nil {
		e := Extent{Size: a.Size}
		if s, ok := seen.Extent(); ok {
			e.Version = s.Version
		}
		if e.Version == "" && !a.LastModified.IsZero() {
			e.Version = "modified " + strconv.FormatInt(a.LastModified.UnixNano(), 10)
		}
		return e, nil
	}
	if ctx.Err() != nil {
		return Extent{}, fmt.Errorf("size of %s: %w", name, err)
	}
	watched, seen = Watch(ctx)
	body, rangeErr := b.GetRange(watched, name, 0, 1)
	if body != nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(body, 2))
		_ = body.Close()
	}
	// An empty object has no first byte, but that answer states the size too.
	if e, ok := seen.Extent(); ok {
		return e, nil
	}
	switch {
	case rangeErr == nil:
		return Extent{}, fmt.Errorf(
			"size of %s: %w (a ranged read succeeds, but does not state the size)", name, err,
		)
	case b.IsObjNotFoundErr(rangeErr):
		return Extent{}, fmt.Errorf("size of %s: %w: %w", name, ErrNotFound, rangeErr)
	}
	return Extent{}, fmt.Errorf("size of %s: %w; by a ranged read: %w", name, err, rangeErr)
}
