package postings

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"larder/indexcache"
	"larder/internal/bytecache"
	"larder/internal/pagecache"
	"larder/store/indexheader"
)

// testFinder is the Finder of an index in memory. It counts the fetches of the index.
type testFinder struct {
	*Finder
	header      *indexheader.Header
	index       pagecache.Object
	mode        Mode
	seriesBytes int64
	pages       *findPages
	fetches     int
}

// findPages are index pages that call before ahead of each Fetch.
type findPages struct {
	*pagecache.Reader
	before func(ctx context.Context) error
}

func (p *findPages) Fetch(
	ctx context.Context, obj pagecache.Object, spans []pagecache.Span, acct *pagecache.Account,
) (*pagecache.Pages, error) {
	if p.before != nil {
		if err := p.before(ctx); err != nil {
			return nil, err
		}
	}
	return p.Reader.Fetch(ctx, obj, spans, acct)
}

// newTestFinder returns a Finder that keeps postings in cache, which may be nil.
func newTestFinder(
	t testing.TB, b *testIndex, pageSize int, cache Cache,
) *testFinder {
	t.Helper()
	f := &testFinder{header: realHeader(t, b), index: b.object}
	r := pagecache.New(
		newTestBucket(b), &pageMap{pages: map[uint64][]byte{}},
		pagecache.Options{PageSize: pageSize},
	)
	t.Cleanup(r.Close)
	var mu sync.Mutex
	f.pages = &findPages{Reader: r, before: func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		f.fetches++
		return nil
	}}
	f.Finder = NewFinder(FinderOptions{
		ID: ulid.ULID{1},
		Header: func(context.Context) (*indexheader.Header, func(), error) {
			return f.header, func() {}, nil
		},
		Pages: f.pages, PageBytes: int64(pageSize), Cache: cache,
		Everyones: func(err error) bool {
			var read *pagecache.ReadError
			return errors.As(err, &read)
		},
	})
	return f
}

// testCache returns a cache of postings: in memory, unless bytes is negative, and in remote, unless
// that is nil.
func testCache(t testing.TB, bytes int64, remote bytecache.Remote) *indexcache.Postings {
	t.Helper()
	c := indexcache.New(nil, indexcache.Options{
		MaxBytes: -1, PostingsBytes: bytes, Remote: remote,
	})
	t.Cleanup(c.Close)
	return c.Postings()
}

func (f *testFinder) find(
	ctx context.Context, ms []*labels.Matcher, acct *pagecache.Account,
) (Result, error) {
	return f.Find(ctx, Query{
		Matchers: NewMatcherSet(ms), Mode: f.mode, Header: f.header, Index: f.index,
		SeriesBytes: f.seriesBytes, Account: acct,
	})
}

// found is what a query returns and costs, as far as it does not depend on the cache.
type found struct {
	Refs    []uint32
	Pending []string
	Stats   Stats
	Charged int64
	Fetches int
}

func (f *testFinder) found(t testing.TB, ms []*labels.Matcher) found {
	t.Helper()
	f.fetches = 0
	out := found{}
	acct := &pagecache.Account{
		Spend: func(touched, _ int64) error { out.Charged += touched; return nil },
	}
	r, err := f.find(t.Context(), ms, acct)
	if err != nil {
		t.Fatalf("%v: %v", ms, err)
	}
	out.Refs, out.Pending = r.Refs, matcherStrings(Canonical(r.Pending))
	out.Stats, out.Fetches = r.Stats, f.fetches
	out.Stats.Values, out.Stats.Lookups, out.Stats.Cached = 0, 0, 0
	return out
}

// TestKeptPostings checks that kept postings are those that a Finder without a cache returns: for
// random matchers in any order, in every mode, and in all formats of the index. A request pays as
// much for them, and makes no fetch.
func TestKeptPostings(t *testing.T) {
	rnd := rand.New(rand.NewPCG(21, 22))
	lazy, empty, some := 0, 0, 0
	f := func(b *testIndex, rounds int, matchers func(rnd *rand.Rand) []*labels.Matcher) {
		t.Helper()
		plain := newTestFinder(t, b, 1<<10, nil)
		kept := newTestFinder(t, b, 1<<10, testCache(t, 4<<20, nil))
		// Where series are very small, lists seem expensive, and matchers stay pending.
		plain.seriesBytes = []int64{0, 3}[rnd.IntN(2)]
		kept.seriesBytes = plain.seriesBytes
		for range rounds {
			ms := matchers(rnd)
			plain.mode = []Mode{Lazy, Lazy, Lazy, Eager, Complete}[rnd.IntN(5)]
			kept.mode = plain.mode
			want := plain.found(t, ms)
			shuffled := append(slices.Clone(ms), ms[rnd.IntN(len(ms))])
			rnd.Shuffle(len(shuffled), func(i, j int) {
				shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
			})
			if diff := cmp.Diff(want, plain.found(t, shuffled)); diff != "" {
				t.Fatalf("%v, in another order (-want +got):\n%s", ms, diff)
			}
			miss := kept.found(t, ms)
			hit := kept.found(t, shuffled)
			if hit.Fetches != 0 {
				t.Fatalf("%v: a hit made %d fetches", ms, hit.Fetches)
			}
			want.Fetches, miss.Fetches = 0, 0
			if diff := cmp.Diff(want, miss); diff != "" {
				t.Fatalf("%v, not kept yet (-want +got):\n%s", ms, diff)
			}
			if diff := cmp.Diff(want, hit); diff != "" {
				t.Fatalf("%v, kept (-want +got):\n%s", ms, diff)
			}
			lazy += min(len(want.Pending), 1)
			if len(want.Refs) == 0 {
				empty++
			} else {
				some++
			}
		}
	}
	for range 20 {
		b := randomIndex(t, rnd)
		if rnd.IntN(4) == 0 {
			index := slices.Clone(b.index)
			index[4] = 3
			b = openTestIndex(t, index)
		}
		f(b, 60, func(rnd *rand.Rand) []*labels.Matcher {
			return randomMatchers(t, rnd, append([]string{"missing"}, testNames...))
		})
	}
	if lazy < 20 || empty < 100 || some < 100 {
		t.Errorf("the test tests too little: %d lazy, %d empty, %d not", lazy, empty, some)
	}
	v1, matchers := indexV1(t)
	f(v1, 100, matchers)
}

// TestFiftyExpansions checks that identical queries share one expansion. A query that gives up
// does not disturb the others, and the limit of one query is not the limit of the others.
func TestFiftyExpansions(t *testing.T) {
	b := wideIndex(t, 2000)
	synctest.Test(t, func(t *testing.T) {
		f := newTestFinder(t, b, 1<<10, testCache(t, 4<<20, nil))
		ms := parseMatchers(t, `pod=~"pod.*7"`)
		goOn := make(chan struct{})
		count := f.pages.before
		f.pages.before = func(ctx context.Context) error {
			if err := count(ctx); err != nil {
				return err
			}
			<-goOn
			return nil
		}
		errLimit := errors.New("limit")
		find := func(ctx context.Context, limited bool) error {
			acct := &pagecache.Account{Spend: func(int64, int64) error {
				if limited {
					return errLimit
				}
				return nil
			}}
			r, err := f.find(ctx, ms, acct)
			if err == nil && len(r.Refs) == 0 {
				t.Error("got no postings")
			}
			return err
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancelled := make(chan error, 1)
		go func() { cancelled <- find(ctx, false) }()
		synctest.Wait()
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				var want error
				if i == 7 {
					want = errLimit
				}
				if err := find(t.Context(), i == 7); !errors.Is(err, want) {
					t.Errorf("query %d: got error %v, want %v", i, err, want)
				}
			})
		}
		synctest.Wait()
		cancel()
		if err := <-cancelled; !errors.Is(err, context.Canceled) {
			t.Errorf("the cancelled query got %v", err)
		}
		synctest.Wait()
		close(goOn)
		wg.Wait()
		if f.fetches != 1 {
			t.Errorf("identical queries made %d fetches, want 1", f.fetches)
		}

		// A failure is not remembered.
		other := parseMatchers(t, `pod=~"pod.*8"`)
		broken := errors.New("bucket is away")
		f.pages.before = func(context.Context) error { return broken }
		if _, err := f.find(t.Context(), other, nil); !errors.Is(err, broken) {
			t.Errorf("got error %v, want %v", err, broken)
		}
		f.pages.before = nil
		if _, err := f.find(t.Context(), other, nil); err != nil {
			t.Errorf("after a failure: %v", err)
		}
	})
}

// TestFailedExpansions checks that an error of the bucket fails all queries that wait for the same
// expansion, which runs once. A limit fails only the query that has it.
func TestFailedExpansions(t *testing.T) {
	b := wideIndex(t, 2000)
	synctest.Test(t, func(t *testing.T) {
		f := newTestFinder(t, b, 1<<10, testCache(t, 4<<20, nil))
		ms := parseMatchers(t, `pod=~"pod.*7"`)
		broken := &pagecache.ReadError{Object: "index", Err: errors.New("bucket is away")}
		goOn := make(chan struct{})
		fetches := 0
		f.pages.before = func(context.Context) error {
			fetches++ // without a lock: the queries share one expansion
			<-goOn
			return broken
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := f.find(t.Context(), ms, nil); !errors.Is(err, broken) {
					t.Errorf("got error %v, want %v", err, broken)
				}
			})
		}
		synctest.Wait()
		close(goOn)
		wg.Wait()
		if fetches != 1 {
			t.Errorf("failed queries made %d fetches, want 1", fetches)
		}

		// The first query exceeds its limit. The others get their postings.
		errLimit := errors.New("limit")
		goOn = make(chan struct{})
		f.pages.before = func(context.Context) error {
			<-goOn
			return nil
		}
		first := make(chan error, 1)
		go func() {
			acct := &pagecache.Account{Spend: func(int64, int64) error {
				<-goOn
				return errLimit
			}}
			_, err := f.find(t.Context(), ms, acct)
			first <- err
		}()
		synctest.Wait()
		for range 10 {
			wg.Go(func() {
				if _, err := f.find(t.Context(), ms, nil); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(goOn)
		wg.Wait()
		if err := <-first; !errors.Is(err, errLimit) {
			t.Errorf("the first query got %v, want %v", err, errLimit)
		}
	})
}

// TestDamagedKeptPostings checks that bytes which are not postings of the block are a miss.
func TestDamagedKeptPostings(t *testing.T) {
	cache := testCache(t, 4<<20, nil)
	f := newTestFinder(t, wideIndex(t, 50), 1<<10, cache)
	ms := parseMatchers(t, `pod=~"pod.*"`)
	want := f.found(t, ms)
	key := indexcache.PostingsKey(
		f.o.ID, f.o.Content, byte(Lazy), f.o.PageBytes, AppendCanonical(nil, ms),
	)
	value, ok := cache.Get(key)
	if !ok || want.Fetches != 1 {
		t.Fatal("nothing is kept")
	}
	check := func(what string, v []byte) {
		t.Helper()
		cache.Del(key)
		cache.Set(key, append(indexcache.AppendID(nil, key), v...))
		if got := f.found(t, ms); !cmp.Equal(got, want) {
			t.Errorf("%s: %s", what, cmp.Diff(want, got))
		}
	}
	check("empty", nil)
	check("cut off", value[:len(value)-1])
	check("longer", append(slices.Clone(value), 0))
	check("more references than bytes", append(slices.Clone(value[:7]), 0xff, 0xff, 0x7f))
	head := []byte{1, 0, 1, 20, 1, 100, 0}
	check("too large", append(slices.Clone(head), 1, 0xff, 0xff, 0xff, 0xff, 0x0f))
	check("not ascending", append(slices.Clone(head), 2, value[len(value)-50], 0))
	check("an unknown matcher pending", append([]byte{1, 1, 1, 20, 1, 100, 1, 9}, value[7:]...))
	other := key
	other.ID[0]++
	cache.Del(key)
	cache.Set(key, append(indexcache.AppendID(nil, other), value...))
	if got := f.found(t, ms); got.Fetches != 1 {
		t.Errorf("the value of another key: %d fetches, want 1", got.Fetches)
	}
}

func FuzzKeptPostings(f *testing.F) {
	f.Add(appendKept(nil, &kept{
		refs:    []uint32{5, 6, 900},
		pending: []int{1},
		stats:   Stats{Groups: 2, Pending: 1},
	}), 3)
	f.Add([]byte{1, 0, 1, 20, 1, 100, 0, 2, 5, 0}, 1)
	f.Fuzz(func(t *testing.T, b []byte, matchers int) {
		bounds := refBounds{first: 5, end: 1000}
		k, ok := decodeKept(b, bounds, matchers)
		if !ok {
			return
		}
		for i, ref := range k.refs {
			if ref < 5 || ref >= 1000 || i > 0 && ref <= k.refs[i-1] {
				t.Fatalf("reference %d of %v", i, k.refs)
			}
		}
		for i, p := range k.pending {
			if p < 0 || p >= matchers || i > 0 && p <= k.pending[i-1] {
				t.Fatalf("pending %v of %d", k.pending, matchers)
			}
		}
		again, ok := decodeKept(appendKept(nil, &k), bounds, matchers)
		if !ok || !cmp.Equal(k, again, cmp.AllowUnexported(kept{})) {
			t.Fatalf("%+v, written and read: %+v, %v", k, again, ok)
		}
	})
}
