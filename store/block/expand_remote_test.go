package block

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
	"larder/store/catalog"
)

// over puts a block's postings into memory, unless that is negative, over a memcached.
func (k *keptBlock) over(t testing.TB, memory int64, r *bytecachetest.Remote) {
	t.Helper()
	index := indexcache.New(nil, indexcache.Options{MaxBytes: -1, PostingsBytes: memory, Remote: r})
	t.Cleanup(index.Close)
	k.postings = index.Postings()
	k.deps.Postings = k.postings
}

// TestPostingsInMemcached: a second process reads no postings and is charged for them all the same;
// what memory has, memcached is not asked for.
func TestPostingsInMemcached(t *testing.T) {
	data := postingsWideBlock(t, 2000).index
	f := func(name string, memory int64, wantAsked int, lines ...string) {
		t.Helper()
		ms := postingsMatchers(t, lines...)
		r := bytecachetest.NewRemote()
		first := newKeptBlock(t, data, catalog.Block{})
		first.over(t, memory, r)
		want := first.planned(t, ms)
		want.Fetches = 0
		second := newKeptBlock(t, data, catalog.Block{})
		second.over(t, memory, r)
		r.Asked()
		for range 3 {
			if diff := cmp.Diff(want, second.planned(t, ms)); diff != "" {
				t.Errorf("%s (-read +kept):\n%s", name, diff)
			}
		}
		if asked := len(r.Asked()); asked != wantAsked {
			t.Errorf("%s: memcached was asked %d times, want %d", name, asked, wantAsked)
		}
	}
	f("memory over memcached", 4<<20, 1, `pod=~"pod.*7"`)
	f("memcached alone", -1, 3, `pod=~"pod.*7"`)
	f("nothing matches", 4<<20, 1, `pod=~"pod.*7"`, `job="small"`)
	f("matchers are pending", 4<<20, 1, `pod!=""`, `job="j7"`)
}

// TestPagesOfOtherSizes: what a request is charged is counted in pages of its own process, whatever
// pages another one has that uses the same memcached.
func TestPagesOfOtherSizes(t *testing.T) {
	data := postingsWideBlock(t, 2000).index
	ms := postingsMatchers(t, `job="j7"`)
	r := bytecachetest.NewRemote()
	for _, size := range []int{1 << 10, 16 << 10} {
		k := newKeptBlock(t, data, catalog.Block{})
		k.Block, k.pages = openStreamBlock(t, data, size, catalog.Block{})
		k.over(t, 4<<20, r)
		if got := k.planned(t, ms); got.Charged == 0 ||
			got.Charged%int64(size) != 0 && got.Charged != int64(len(data)) {
			t.Errorf("with pages of %d bytes a request is charged %d", size, got.Charged)
		}
	}
}

// TestFiftyLookups: identical plans ask memcached once. Where it brings postings that one request
// may not have, or panics, the others are served.
func TestFiftyLookups(t *testing.T) {
	errLimit := errors.New("limit")
	f := func(name string, filled, panicking, leaderLimited bool, wantFetches int) {
		t.Run(name, func(t *testing.T) {
			data := postingsWideBlock(t, 2000).index
			synctest.Test(t, func(t *testing.T) {
				ms := postingsMatchers(t, `pod=~"pod.*7"`)
				r := bytecachetest.NewRemote()
				if filled {
					first := newKeptBlock(t, data, catalog.Block{})
					first.over(t, -1, r)
					first.planned(t, ms)
				}
				k := newKeptBlock(t, data, catalog.Block{})
				k.over(t, 4<<20, r)
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
				plan := func(limited bool) error {
					acct := &pagecache.Account{Spend: func(int64, int64) error {
						if limited {
							return errLimit
						}
						return nil
					}}
					p, err := k.Plan(t.Context(), ms, PlanOptions{Account: acct})
					if err == nil {
						p.Close()
					}
					return err
				}
				leader := make(chan error, 1)
				go func() { leader <- plan(leaderLimited) }()
				synctest.Wait()
				var wg sync.WaitGroup
				for range 49 {
					wg.Go(func() {
						if err := plan(false); err != nil {
							t.Errorf("who joined got %v", err)
						}
					})
				}
				synctest.Wait()
				if asked := len(r.Asked()); asked != 1 {
					t.Errorf("memcached is asked %d times by those that wait", asked)
				}
				close(goOn)
				wg.Wait()
				err := <-leader
				var panicked *panics.Error
				if leaderLimited != errors.Is(err, errLimit) ||
					panicking != errors.As(err, &panicked) ||
					!leaderLimited && !panicking && err != nil {
					t.Errorf("who came first got %v", err)
				}
				if k.fetches > wantFetches {
					t.Errorf("%d fetches, want at most %d", k.fetches, wantFetches)
				}
			})
		})
	}
	f("found", true, false, false, 0)
	f("not found", false, false, false, 1)
	f("found, and the first may not have it", true, false, true, 0)
	f("the look-up of the first panics", true, true, false, 0)
}

// TestMendedPostings: a list that had to be read twice is charged twice to the request that did it,
// and to nobody who is given what came of it.
func TestMendedPostings(t *testing.T) {
	wide := postingsWideBlock(t, 300)
	ms := postingsMatchers(t, `pod=~"pod.*7"`)
	want := newKeptBlock(t, wide.index, catalog.Block{}).planned(t, ms)
	k := newKeptBlock(t, wide.index, catalog.Block{})
	l := wide.names["pod"][7].list
	bucket := &postingsBucket{
		data:  wide.index,
		name:  "BLOCK/index",
		flips: []postingsFlip{{off: l.Off + 8, times: 1}},
	}
	pages := pagecache.New(
		bucket, &postingsCache{pages: map[uint64][]byte{}}, pagecache.Options{PageSize: 1 << 10},
	)
	t.Cleanup(pages.Close)
	k.pages.Reader = pages
	if mended := k.planned(t, ms); mended.Stats.Repaired != 1 || mended.Charged <= want.Charged {
		t.Fatalf("%+v: nothing was mended", mended)
	}
	want.Fetches = 0
	if diff := cmp.Diff(want, k.planned(t, ms)); diff != "" {
		t.Errorf("kept after mending (-without damage +with):\n%s", diff)
	}
}

// TestStrangersPostings: another key's value in memcached is a miss, and the next look-up finds
// what came instead.
func TestStrangersPostings(t *testing.T) {
	data := postingsWideBlock(t, 50).index
	for _, bad := range []string{"short", string(make([]byte, 100)), ""} {
		ms := postingsMatchers(t, `pod=~"pod.*"`)
		r := bytecachetest.NewRemote()
		k := newKeptBlock(t, data, catalog.Block{})
		k.over(t, 4<<20, r)
		k.planned(t, ms)
		r.Change(func(values map[bytecache.ID][]byte) {
			for id := range values {
				values[id] = []byte(bad)
			}
		})
		k = newKeptBlock(t, data, catalog.Block{})
		k.over(t, 4<<20, r)
		for i, want := range []int{1, 0} {
			if got := k.planned(t, ms); got.Fetches != want {
				t.Errorf(
					"%.10q in memcached, plan %d: %d fetches, want %d", bad, i, got.Fetches, want,
				)
			}
		}
	}
}

// TestKeptPostingsAreExact: a value holds on to no more bytes than it is accounted with, but for
// what the allocator rounds up to.
func TestKeptPostingsAreExact(t *testing.T) {
	for _, n := range []int{0, 1, 3, 100, 1000, 100_000} {
		for _, step := range []uint32{1, 127, 128, 20_000} {
			k := keptPostings{refs: make([]uint32, n), pending: []int{1}, touched: 1 << 20}
			for i := range k.refs {
				k.refs[i] = 10 + uint32(i)*step
			}
			v := appendPostings(indexcache.AppendID(nil, bytecache.Key{}), &k)
			if spare := cap(v) - len(v); spare > 32+len(v)/8 {
				t.Errorf(
					"%d references %d apart: %d bytes, and %d that nobody uses", n, step, len(v),
					spare,
				)
			}
		}
	}
}
