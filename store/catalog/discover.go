package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"larder/internal/extent"
)

// Bucket is the part of objstore.Bucket that the catalog uses.
type Bucket interface {
	Iter(
		ctx context.Context, dir string, f func(name string) error, options ...objstore.IterOption,
	) error
	IterWithAttributes(
		ctx context.Context, dir string, f func(attrs objstore.IterObjectAttributes) error,
		options ...objstore.IterOption,
	) error
	SupportedIterOptions() []objstore.IterOptionType
	Get(ctx context.Context, name string) (io.ReadCloser, error)
	GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error)
	Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error)
	IsObjNotFoundErr(err error) bool
}

// expectingBucket is a bucket whose metrics can ignore expected errors. Most blocks have no
// deletion mark; without this, every sync would look like an outage of the bucket.
type expectingBucket interface {
	ReaderWithExpectedErrs(objstore.IsOpFailureExpectedFunc) objstore.BucketReader
}

// Discovery is a method of finding the blocks of a bucket.
type Discovery string

const (
	// Concurrent lists the root and reads the meta.json of every new block. It is the default.
	Concurrent Discovery = "concurrent"
	// Recursive lists every object of the bucket. The listing shows missing meta.json files and
	// deletion marks, which saves requests for them. It is better if requests are expensive,
	// listings are cheap and blocks have few chunk files.
	Recursive Discovery = "recursive"
)

// listed is what a listing shows of one block.
type listed struct {
	// hasMeta and marked are known only from a recursive listing.
	hasMeta, marked bool
	// metaModified and markModified are the objects' times of last change, zero if the bucket does
	// not state them.
	metaModified, markModified time.Time
}

// listing is the blocks of a bucket.
type listing struct {
	blocks map[ulid.ULID]listed
	// recursive means that hasMeta and marked are known. partial means that the listing ended
	// early: blocks and files that it lacks may exist.
	recursive, partial bool
	// others counts names that are not folders of blocks, and examples are the first of them.
	others   int
	examples []string
}

// maxExamples is how many names are logged of a bucket without blocks.
const maxExamples = 5

// addOther adds a name that is not the folder of a block.
func (l *listing) addOther(name string) {
	l.others++
	if dir, _, ok := strings.Cut(name, objstore.DirDelim); ok {
		name = dir + objstore.DirDelim
	}
	if len(l.examples) < maxExamples && !slices.Contains(l.examples, name) {
		l.examples = append(l.examples, name)
	}
}

// list lists the bucket. After an error it returns the part listed before it.
func (c *Catalog) list(ctx context.Context, d Discovery) (listing, error) {
	l := listing{blocks: map[ulid.ULID]listed{}, recursive: d == Recursive}
	page, err := c.documents.reserve(ctx, listingBytes)
	if err != nil {
		l.partial = true
		return l, fmt.Errorf("list blocks: %w", err)
	}
	defer page.release()
	ctx, progress, stop := withStall(ctx, c.opts.StallTimeout)
	defer stop()

	if d == Recursive {
		options := []objstore.IterOption{objstore.WithRecursiveIter()}
		if slices.Contains(c.bucket.SupportedIterOptions(), objstore.UpdatedAt) {
			options = append(options, objstore.WithUpdatedAt())
		}
		err = c.bucket.IterWithAttributes(ctx, "", func(o objstore.IterObjectAttributes) error {
			progress()
			l.addObject(o)
			return ctx.Err()
		}, options...)
	} else {
		err = c.bucket.Iter(ctx, "", func(name string) error {
			progress()
			dir, isDir := strings.CutSuffix(name, objstore.DirDelim)
			if id, ok := parseBlockID(dir); ok && isDir {
				l.blocks[id] = listed{}
			} else {
				l.addOther(name)
			}
			return ctx.Err()
		})
	}
	if err == nil {
		err = ctx.Err() // some clients return no error for an interrupted listing
	}
	if err != nil {
		l.partial = true
		return l, fmt.Errorf("list blocks: %w", withCause(ctx, err))
	}
	return l, nil
}

// withCause returns err with the cause of the end of ctx, if it has ended. A stalled listing then
// does not look like one that the caller cancelled.
func withCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %v", cause, err) //nolint:errorlint // err is context.Canceled
	}
	return err
}

// addObject adds one object of a recursive listing.
func (l *listing) addObject(o objstore.IterObjectAttributes) {
	dir, file, isDir := strings.Cut(o.Name, objstore.DirDelim)
	id, ok := parseBlockID(dir)
	if !ok || !isDir {
		l.addOther(o.Name)
		return
	}
	b := l.blocks[id]
	switch file {
	case metaFile:
		b.hasMeta = true
		b.metaModified, _ = o.LastModified()
	case markFile:
		b.marked = true
		b.markModified, _ = o.LastModified()
	}
	l.blocks[id] = b
}

// parseBlockID parses the name of a block's folder. It accepts a ULID only as ULID.String writes
// it, because the block's objects are read under that name.
func parseBlockID(name string) (ulid.ULID, bool) {
	id, err := ulid.ParseStrict(name)
	return id, err == nil && id.String() == name
}

var errStalled = errors.New("stalled")

// withStall returns a context that ends when progress was not called for the given time. A listing
// may take any time, but a bucket that accepts a request and then sends nothing must not block the
// catalog.
func withStall(ctx context.Context, d time.Duration) (_ context.Context, progress, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(d, func() {
		cancel(fmt.Errorf("%w: received nothing for %v", errStalled, d))
	})
	return ctx, func() { timer.Reset(d) }, func() { timer.Stop(); cancel(nil) }
}

// bucketReader is the part of Bucket that reads objects and their sizes.
type bucketReader interface {
	objectReader
	extent.Bucket
}

// objectReader is the part of Bucket that reads whole objects.
type objectReader interface {
	Get(ctx context.Context, name string) (io.ReadCloser, error)
	IsObjNotFoundErr(err error) bool
}
