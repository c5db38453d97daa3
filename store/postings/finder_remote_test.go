package postings

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"larder/indexcache"
	"larder/internal/bytecache"
	"larder/internal/bytecache/bytecachetest"
	"larder/internal/pagecache"
	"larder/internal/panics"
)

// TestPostingsInMemcached checks that a second process reads no postings that memcached has, and is
// charged for them all the same. It asks memcached only for what its memory does not have.
func TestPostingsInMemcached(t *testing.T) {
	b := wideIndex(t, 2000)
	check := func(name string, memory int64, wantAsked int, lines ...string) {
		t.Helper()
		ms := parseMatchers(t, lines...)
		r := bytecachetest.NewRemote()
		want := newTestFinder(t, b, 1<<10, testCache(t, memory, r)).found(t, ms)
		want.Fetches = 0
		second := newTestFinder(t, b, 1<<10, testCache(t, memory, r))
		r.Asked()
		for range 3 {
			if diff := cmp.Diff(want, second.found(t, ms)); diff != "" {
				t.Errorf("%s (-read +kept):\n%s", name, diff)
			}
		}
		if asked := len(r.Asked()); asked != wantAsked {
			t.Errorf("%s: memcached was asked %d times, want %d", name, asked, wantAsked)
		}
	}
	check("memory over memcached", 4<<20, 1, `pod=~"pod.*7"`)
	check("memcached alone", -1, 3, `pod=~"pod.*7"`)
	check("nothing matches", 4<<20, 1, `pod=~"pod.*7"`, `job="small"`)
	check("matchers are pending", 4<<20, 1, `pod!=""`, `job="j7"`)
}

// TestPagesOfOtherSizes checks that a request is charged in pages of its own process, if another
// process with other pages uses the same memcached.
func TestPagesOfOtherSizes(t *testing.T) {
	b := wideIndex(t, 2000)
	ms := parseMatchers(t, `job="j7"`)
	r := bytecachetest.NewRemote()
	for _, size := range []int{1 << 10, 16 << 10} {
		got := newTestFinder(t, b, size, testCache(t, 4<<20, r)).found(t, ms)
		if whole := int64(len(b.index)); got.Charged == 0 ||
			got.Charged%int64(size) != 0 && got.Charged != whole {
			t.Errorf("with pages of %d bytes a request is charged %d", size, got.Charged)
		}
	}
}

// TestFiftyLookups checks that identical queries ask memcached once. If one query may not have the
// postings that it finds, or panics, the others get them.
func TestFiftyLookups(t *testing.T) {
	errLimit := errors.New("limit")
	b := wideIndex(t, 2000)
	check := func(name string, filled, panicking, leaderLimited bool, wantFetches int) {
		t.Run(name, func(t *testing.T) {
			ms := parseMatchers(t, `pod=~"pod.*7"`)
			r := bytecachetest.NewRemote()
			if filled {
				newTestFinder(t, b, 1<<10, testCache(t, -1, r)).found(t, ms)
			}
			synctest.Test(t, func(t *testing.T) {
				f := newTestFinder(t, b, 1<<10, testCache(t, 4<<20, r))
				goOn := make(chan struct{})
				r.Asked()
				var first atomic.Bool
				r.Before = func(context.Context) {
					isFirst := !first.Swap(true)
					<-goOn
					if panicking && isFirst {
						panic("client of memcached")
					}
				}
				find := func(limited bool) error {
					_, err := f.find(t.Context(), ms, &pagecache.Account{
						Spend: func(int64, int64) error {
							if limited {
								return errLimit
							}
							return nil
						},
					})
					return err
				}
				leader := make(chan error, 1)
				go func() { leader <- find(leaderLimited) }()
				synctest.Wait()
				var wg sync.WaitGroup
				for range 49 {
					wg.Go(func() {
						if err := find(false); err != nil {
							t.Errorf("a query that joined got %v", err)
						}
					})
				}
				synctest.Wait()
				if asked := len(r.Asked()); asked != 1 {
					t.Errorf("memcached was asked %d times, want once", asked)
				}
				close(goOn)
				wg.Wait()
				err := <-leader
				var panicked *panics.Error
				if leaderLimited != errors.Is(err, errLimit) ||
					panicking != errors.As(err, &panicked) ||
					!leaderLimited && !panicking && err != nil {
					t.Errorf("the first query got %v", err)
				}
				if f.fetches > wantFetches {
					t.Errorf("%d fetches, want at most %d", f.fetches, wantFetches)
				}
			})
		})
	}
	check("found", true, false, false, 0)
	check("not found", false, false, false, 1)
	check("found, and the first may not have it", true, false, true, 0)
	check("the look-up of the first panics", true, true, false, 0)
}

// TestMendedPostings checks that a list which had to be read twice is charged twice to the request
// that read it, and once to requests that get its postings from the cache.
func TestMendedPostings(t *testing.T) {
	b := wideIndex(t, 300)
	ms := parseMatchers(t, `pod=~"pod.*7"`)
	want := newTestFinder(t, b, 1<<10, testCache(t, 4<<20, nil)).found(t, ms)
	f := newTestFinder(t, b, 1<<10, testCache(t, 4<<20, nil))
	l := b.names["pod"][7].list
	bucket := newTestBucket(b)
	bucket.flips = []flip{{off: l.Off + 8, times: 1}}
	pages := pagecache.New(
		bucket, &pageMap{pages: map[uint64][]byte{}}, pagecache.Options{PageSize: 1 << 10},
	)
	t.Cleanup(pages.Close)
	f.pages.Reader = pages
	if mended := f.found(t, ms); mended.Stats.Repaired != 1 || mended.Charged <= want.Charged {
		t.Fatalf("%+v: nothing was mended", mended)
	}
	want.Fetches = 0
	if diff := cmp.Diff(want, f.found(t, ms)); diff != "" {
		t.Errorf("kept after mending (-without damage +with):\n%s", diff)
	}
}

// TestPostingsOfAnotherKey checks that the value of another key in memcached is a miss. The next
// query finds what replaced it.
func TestPostingsOfAnotherKey(t *testing.T) {
	b := wideIndex(t, 50)
	for _, bad := range []string{"short", string(make([]byte, 100)), ""} {
		ms := parseMatchers(t, `pod=~"pod.*"`)
		r := bytecachetest.NewRemote()
		newTestFinder(t, b, 1<<10, testCache(t, 4<<20, r)).found(t, ms)
		r.Change(func(values map[bytecache.ID][]byte) {
			for id := range values {
				values[id] = []byte(bad)
			}
		})
		f := newTestFinder(t, b, 1<<10, testCache(t, 4<<20, r))
		for i, want := range []int{1, 0} {
			if got := f.found(t, ms); got.Fetches != want {
				t.Errorf("%.10q in memcached, query %d: %d fetches, want %d",
					bad, i, got.Fetches, want)
			}
		}
	}
}

// TestKeptPostingsAreExact checks that a value holds no more memory than its length, besides what
// the allocator rounds up to.
func TestKeptPostingsAreExact(t *testing.T) {
	for _, n := range []int{0, 1, 3, 100, 1000, 100_000} {
		for _, step := range []uint32{1, 127, 128, 20_000} {
			k := kept{refs: make([]uint32, n), pending: []int{1}, touched: 1 << 20}
			for i := range k.refs {
				k.refs[i] = 10 + uint32(i)*step
			}
			v := appendKept(indexcache.AppendID(nil, bytecache.Key{}), &k)
			if spare := cap(v) - len(v); spare > 32+len(v)/8 {
				t.Errorf("%d references %d apart: %d bytes, and %d unused",
					n, step, len(v), spare)
			}
		}
	}
}
