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

	"github.com/thanos-io/objstore"
)

// testBucket counts requests and injects failures.
type testBucket struct {
	*objstore.InMemBucket
	mu      sync.Mutex
	counts  map[string]int
	fail    string // path.Match pattern of objects that cannot be read; "" for none
	missing string // the same, of objects that are said to be missing
	denied  string // the same, of objects to which access is denied
	// shortList ends listings after so many entries, without an error; -1 for never.
	shortList atomic.Int64
	// failList makes listings fail after so many entries; -1 for never.
	failList atomic.Int64
	// onGet is called before every read that does not fail.
	onGet func(ctx context.Context, name string)
	// onList is called before every listing.
	onList func(ctx context.Context)
	// noTimes removes the times of last change from listings, like some providers.
	noTimes bool
}

var (
	errInjected = errors.New("injected failure")
	errDenied   = errors.New("access denied")
	errShort    = errors.New("short") // within a listing that ends early
)

func newTestBucket() *testBucket {
	b := &testBucket{InMemBucket: objstore.NewInMemBucket(), counts: map[string]int{}}
	b.failList.Store(-1)
	b.shortList.Store(-1)
	return b
}

func (b *testBucket) count(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts[what]++
}

// requests returns the counts since the last call.
func (b *testBucket) requests() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer clear(b.counts)
	return fmt.Sprintf(
		"list=%d meta=%d mark=%d other=%d", b.counts["list"], b.counts[metaFile],
		b.counts[markFile], b.counts["other"],
	)
}

func (b *testBucket) Iter(
	ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption,
) error {
	return b.IterWithAttributes(
		ctx,
		dir,
		func(o objstore.IterObjectAttributes) error { return f(o.Name) },
		options...)
}

func (b *testBucket) IterWithAttributes(
	ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error,
	options ...objstore.IterOption,
) error {
	b.count("list")
	if b.onList != nil {
		b.onList(ctx)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	n, last, short := int64(0), b.failList.Load(), b.shortList.Load()
	err := b.InMemBucket.IterWithAttributes(ctx, dir, func(o objstore.IterObjectAttributes) error {
		if n == last {
			return errInjected
		}
		if n == short {
			return errShort
		}
		n++
		return f(o)
	}, options...)
	if errors.Is(err, errShort) {
		return nil
	}
	if err == nil && n == last {
		return errInjected
	}
	return err
}

func (b *testBucket) SupportedIterOptions() []objstore.IterOptionType {
	if b.noTimes {
		return []objstore.IterOptionType{objstore.Recursive}
	}
	return b.InMemBucket.SupportedIterOptions()
}

func (b *testBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if base := path.Base(name); base == metaFile || base == markFile {
		b.count(base)
	} else {
		b.count("other")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch {
	case matches(b.fail, name):
		return nil, errInjected
	case matches(b.denied, name):
		return nil, errDenied
	case matches(b.missing, name):
		return b.InMemBucket.Get(ctx, "missing")
	}
	if b.onGet != nil {
		b.onGet(ctx, name)
	}
	return b.InMemBucket.Get(ctx, name)
}

// matches reports whether one of the patterns, separated by |, matches a name.
func matches(patterns, name string) bool {
	return patterns != "" &&
		slices.ContainsFunc(strings.Split(patterns, "|"), func(pattern string) bool {
			ok, err := path.Match(pattern, name)
			return ok || err != nil
		})
}

// put stores an object.
func (b *testBucket) put(name, content string) {
	if err := b.Upload(context.Background(), name, strings.NewReader(content)); err != nil {
		panic(err) // the memory bucket has no way to fail
	}
}

// deleteBlock removes all objects under a block's folder.
func (b *testBucket) deleteBlock(id string) {
	for name := range b.Objects() {
		if strings.HasPrefix(name, id+"/") {
			if err := b.Delete(context.Background(), name); err != nil {
				panic(err)
			}
		}
	}
}
