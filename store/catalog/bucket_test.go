package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/thanos-io/objstore"

	"larder/internal/faultstore"
)

// testBucket is a bucket in memory that counts requests, fails by rules, and calls hooks.
type testBucket struct {
	*faultstore.Bucket // on memory
	memory             *objstore.InMemBucket
	faults             *faultstore.Faults

	mu     sync.Mutex
	counts map[string]int
	// onGet is called before every read.
	onGet func(ctx context.Context, name string)
	// onList is called before every listing.
	onList func(ctx context.Context)
	// noTimes removes the times of last change from listings, like some providers.
	noTimes bool
	// silent ends listings without an error when their context ends, like some clients.
	silent bool
	// modified replaces the time of last change of every object in Attributes, unless it is zero.
	modified atomic.Int64
	// uploadErr is the error of Upload.
	uploadErr error
}

func newTestBucket() *testBucket {
	b := &testBucket{
		memory: objstore.NewInMemBucket(),
		faults: faultstore.New(1),
		counts: map[string]int{},
	}
	b.Bucket = faultstore.Wrap(b.memory, b.faults)
	return b
}

// failGets returns a rule that fails reads of the objects whose names match a pattern of
// path.Match, or one of several that are separated by |.
func failGets(kind faultstore.Kind, patterns string) faultstore.Rule {
	return faultstore.Rule{Kind: kind, Ops: []string{objstore.OpGet}, Match: func(
		_, name string,
	) bool {
		return slices.ContainsFunc(strings.Split(patterns, "|"), func(pattern string) bool {
			ok, err := path.Match(pattern, name)
			return ok || err != nil
		})
	}}
}

// failLists returns a rule that breaks listings after n entries.
func failLists(kind faultstore.Kind, n int64) faultstore.Rule {
	if n == 0 {
		n = -1 // At 0 is random
	}
	return faultstore.Rule{Kind: kind, At: n}
}

// accessDenied reports whether an error of a faultstore.Bucket is one of AccessDenied.
func accessDenied(err error) bool {
	var r minio.ErrorResponse
	return errors.As(err, &r) && r.Code == "AccessDenied"
}

func (b *testBucket) count(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts[what]++
}

// requests returns the numbers of listings and reads since the last call.
func (b *testBucket) requests() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer clear(b.counts)
	return fmt.Sprintf("list=%d meta=%d mark=%d other=%d",
		b.counts["list"], b.counts[metaFile], b.counts[markFile], b.counts["other"])
}

// sizeRequests returns the number of Attributes calls since the last call of requests.
func (b *testBucket) sizeRequests() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int64(b.counts["attributes"])
}

func (b *testBucket) Iter(
	ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption,
) error {
	each := func(o objstore.IterObjectAttributes) error { return f(o.Name) }
	return b.IterWithAttributes(ctx, dir, each, options...)
}

func (b *testBucket) IterWithAttributes(
	ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error,
	options ...objstore.IterOption,
) error {
	b.count("list")
	if b.onList != nil {
		b.onList(ctx)
	}
	if b.silent && ctx.Err() != nil {
		return nil
	}
	return b.Bucket.IterWithAttributes(ctx, dir, f, options...)
}

func (b *testBucket) SupportedIterOptions() []objstore.IterOptionType {
	if b.noTimes {
		return []objstore.IterOptionType{objstore.Recursive}
	}
	return b.Bucket.SupportedIterOptions()
}

func (b *testBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if base := path.Base(name); base == metaFile || base == markFile {
		b.count(base)
	} else {
		b.count("other")
	}
	if b.onGet != nil {
		b.onGet(ctx, name)
	}
	return b.Bucket.Get(ctx, name)
}

func (b *testBucket) Attributes(
	ctx context.Context, name string,
) (objstore.ObjectAttributes, error) {
	b.count("attributes")
	a, err := b.Bucket.Attributes(ctx, name)
	if v := b.modified.Load(); v != 0 {
		a.LastModified = time.Unix(v, 0)
	}
	return a, err
}

func (b *testBucket) Upload(
	ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption,
) error {
	if b.uploadErr != nil {
		return b.uploadErr
	}
	return b.Bucket.Upload(ctx, name, r, opts...)
}

// put stores an object.
func (b *testBucket) put(name, content string) {
	if err := b.memory.Upload(context.Background(), name, strings.NewReader(content)); err != nil {
		panic(err) // memory never fails
	}
}

// deleteBlock removes all objects under a block's folder.
func (b *testBucket) deleteBlock(id string) {
	for name := range b.memory.Objects() {
		if strings.HasPrefix(name, id+"/") {
			if err := b.memory.Delete(context.Background(), name); err != nil {
				panic(err)
			}
		}
	}
}
