package block

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"

	"larder/indexcache"
	"larder/internal/pagecache"
	"larder/store/catalog"
)

// keptBlock is a block whose expanded postings are kept, and counts the fetches of its index.
type keptBlock struct {
	*Block
	pages    *streamPages
	postings *indexcache.Postings
	fetches  int
}

func newKeptBlock(t testing.TB, data []byte, meta catalog.Block) *keptBlock {
	t.Helper()
	k := &keptBlock{}
	k.Block, k.pages = openStreamBlock(t, data, 1<<10, meta)
	index := indexcache.New(nil, indexcache.Options{MaxBytes: -1, PostingsBytes: 4 << 20})
	t.Cleanup(index.Close)
	k.postings = index.Postings()
	k.deps.Postings = k.postings
	var mu sync.Mutex
	k.pages.instead = func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		k.fetches++
		return nil
	}
	return k
}

// planned is what a plan comes to.
type plannedPostings struct {
	Refs    []uint32
	Pending []string
	Stats   PostingsStats
	Charged int64
	Fetches int
}

func (k *keptBlock) planned(t testing.TB, ms []*labels.Matcher) plannedPostings {
	t.Helper()
	k.fetches = 0
	out := plannedPostings{}
	acct := &pagecache.Account{
		Spend: func(touched, _ int64) error { out.Charged += touched; return nil },
	}
	p, err := k.Plan(context.Background(), ms, PlanOptions{Account: acct})
	if err != nil {
		t.Fatalf("%v: %v", ms, err)
	}
	defer p.Close()
	out.Refs, out.Pending, out.Stats, out.Fetches = p.refs, matcherStrings(
		Canonical(p.pending),
	), p.stats, k.fetches
	out.Stats.Values, out.Stats.Lookups, out.Stats.Cached = 0, 0, 0
	return out
}

// TestKeptPostings: what is kept is what is read, for random matchers, eager and lazy, in any
// order, in all formats of the index; it costs a request as much, and no fetch.
func TestKeptPostings(t *testing.T) {
	rnd := rand.New(rand.NewPCG(21, 22))
	lazy, empty, some := 0, 0, 0
	f := func(index []byte, rounds int, matchers func(rnd *rand.Rand) []*labels.Matcher) {
		t.Helper()
		// With series so small that lists seem dear, matchers stay pending.
		meta := catalog.Block{NumSeries: []uint64{0, uint64(len(index) / 4)}[rnd.IntN(2)]}
		plain := newKeptBlock(t, index, meta)
		plain.deps.Postings = nil
		kept := newKeptBlock(t, index, meta)
		for range rounds {
			ms := matchers(rnd)
			if rnd.IntN(3) == 0 {
				key := newMatcherSet(ms).hash()
				plain.zero, kept.zero = map[uint64]struct{}{key: {}}, map[uint64]struct{}{key: {}}
			}
			want := plain.planned(t, ms)
			shuffled := append(slices.Clone(ms), ms[rnd.IntN(len(ms))])
			rnd.Shuffle(
				len(shuffled),
				func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] },
			)
			if diff := cmp.Diff(want, plain.planned(t, shuffled)); diff != "" {
				t.Fatalf("%v, in another order (-want +got):\n%s", ms, diff)
			}
			miss := kept.planned(t, ms)
			hit := kept.planned(t, shuffled)
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
		index := postingsRandomBlock(t, rnd).index
		if rnd.IntN(4) == 0 {
			index = slices.Clone(index)
			index[4] = 3
		}
		f(index, 60, func(rnd *rand.Rand) []*labels.Matcher {
			return postingsRandomMatchers(t, rnd, append([]string{"missing"}, postingsNames...))
		})
	}
	if lazy < 20 || empty < 100 || some < 100 {
		t.Errorf("the test tests too little: %d lazy, %d empty, %d not", lazy, empty, some)
	}
	v1, matchers := postingsV1(t)
	f(v1.index, 100, matchers)
}

// TestFiftyExpansions: identical plans make one expansion; who gives up disturbs nobody, and who
// meets a limit is alone with it.
func TestFiftyExpansions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeptBlock(t, postingsWideBlock(t, 2000).index, catalog.Block{})
		ms := postingsMatchers(t, `pod=~"pod.*7"`)
		goOn := make(chan struct{})
		count := k.pages.instead
		k.pages.instead = func(ctx context.Context) error {
			if err := count(ctx); err != nil {
				return err
			}
			<-goOn
			return nil
		}
		errLimit := errors.New("limit")
		plan := func(ctx context.Context, limited bool) error {
			acct := &pagecache.Account{Spend: func(int64, int64) error {
				if limited {
					return errLimit
				}
				return nil
			}}
			p, err := k.Plan(ctx, ms, PlanOptions{Account: acct})
			if err != nil {
				return err
			}
			defer p.Close()
			if p.Postings() == 0 {
				t.Error("no postings")
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() { gone <- plan(ctx, false) }()
		synctest.Wait()
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if err := plan(t.Context(), i == 7); i == 7 != errors.Is(err, errLimit) ||
					i != 7 && err != nil {
					t.Errorf("plan %d: %v", i, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up got %v", err)
		}
		synctest.Wait()
		close(goOn)
		wg.Wait()
		if k.fetches != 1 {
			t.Errorf("%d fetches for identical plans", k.fetches)
		}

		// A failure is not remembered.
		other := postingsMatchers(t, `pod=~"pod.*8"`)
		broken := errors.New("bucket is away")
		k.pages.instead = func(context.Context) error { return broken }
		if _, err := k.Plan(t.Context(), other, PlanOptions{}); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		k.pages.instead = nil
		p, err := k.Plan(t.Context(), other, PlanOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p.Close()
	})
}

// TestFailedExpansions: what the bucket does to one of 50 identical plans, it does to all of them,
// once; a limit is its owner's.
func TestFailedExpansions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeptBlock(t, postingsWideBlock(t, 2000).index, catalog.Block{})
		ms := postingsMatchers(t, `pod=~"pod.*7"`)
		broken := &pagecache.ReadError{Object: "index", Err: errors.New("bucket is away")}
		goOn := make(chan struct{})
		asked := 0
		k.pages.instead = func(context.Context) error {
			asked++ // by nobody else: plans wait for this one
			<-goOn
			return broken
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := k.Plan(t.Context(), ms, PlanOptions{}); !errors.Is(err, broken) {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		close(goOn)
		wg.Wait()
		if asked != 1 {
			t.Errorf("pages were asked for %d times", asked)
		}

		// Who begins meets his limit, and the others do without him.
		errLimit := errors.New("limit")
		goOn = make(chan struct{})
		k.pages.instead = func(context.Context) error {
			<-goOn
			return nil
		}
		first := make(chan error, 1)
		go func() {
			acct := &pagecache.Account{Spend: func(int64, int64) error {
				<-goOn
				return errLimit
			}}
			_, err := k.Plan(t.Context(), ms, PlanOptions{Account: acct})
			first <- err
		}()
		synctest.Wait()
		for range 10 {
			wg.Go(func() {
				p, err := k.Plan(t.Context(), ms, PlanOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				p.Close()
			})
		}
		synctest.Wait()
		close(goOn)
		wg.Wait()
		if err := <-first; !errors.Is(err, errLimit) {
			t.Errorf("the first got %v", err)
		}
	})
}

// TestDamagedKeptPostings: bytes that are no postings of the block are a miss.
func TestDamagedKeptPostings(t *testing.T) {
	k := newKeptBlock(t, postingsWideBlock(t, 50).index, catalog.Block{})
	ms := postingsMatchers(t, `pod=~"pod.*"`)
	want := k.planned(t, ms)
	key := indexcache.PostingsKey(
		k.meta.ID, k.meta.Content, byte(lazily), k.indexPage(), AppendCanonical(nil, ms),
	)
	value, ok := k.postings.Get(key)
	if !ok || want.Fetches != 1 {
		t.Fatal("nothing is kept")
	}
	f := func(what string, v []byte) {
		t.Helper()
		k.postings.Del(key)
		k.postings.Set(key, append(indexcache.AppendID(nil, key), v...))
		if got := k.planned(t, ms); !cmp.Equal(got, want) {
			t.Errorf("%s: %s", what, cmp.Diff(want, got))
		}
	}
	f("empty", nil)
	f("cut off", value[:len(value)-1])
	f("longer", append(slices.Clone(value), 0))
	f("more references than bytes", append(slices.Clone(value[:7]), 0xff, 0xff, 0x7f))
	f("too large", append(append([]byte{1, 0, 1, 20, 1, 100, 0}, 1), 0xff, 0xff, 0xff, 0xff, 0x0f))
	f("not ascending", append([]byte{1, 0, 1, 20, 1, 100, 0, 2}, value[len(value)-50], 0))
	f("pending what is not there", append([]byte{1, 1, 1, 20, 1, 100, 1, 9}, value[7:]...))
	other := key
	other.ID[0]++
	k.postings.Del(key)
	k.postings.Set(key, append(indexcache.AppendID(nil, other), value...))
	if got := k.planned(t, ms); got.Fetches != 1 {
		t.Error("another key's value is taken for this one's")
	}
}

func FuzzKeptPostings(f *testing.F) {
	f.Add(
		appendPostings(
			nil,
			&keptPostings{
				refs:    []uint32{5, 6, 900},
				pending: []int{1},
				stats:   PostingsStats{Groups: 2, Pending: 1},
			},
		),
		3,
	)
	f.Add([]byte{1, 0, 1, 20, 1, 100, 0, 2, 5, 0}, 1)
	f.Fuzz(func(t *testing.T, b []byte, matchers int) {
		bounds := refBounds{first: 5, end: 1000}
		k, ok := decodePostings(b, bounds, matchers)
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
		again, ok := decodePostings(appendPostings(nil, &k), bounds, matchers)
		if !ok || !cmp.Equal(k, again, cmp.AllowUnexported(keptPostings{})) {
			t.Fatalf("%+v, written and read: %+v, %v", k, again, ok)
		}
	})
}

func BenchmarkKeptPostings(b *testing.B) {
	f := func(name string, n int, step uint32) {
		k := keptPostings{refs: make([]uint32, n)}
		for i := range k.refs {
			k.refs[i] = 10 + uint32(i)*step
		}
		v := appendPostings(nil, &k)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := decodePostings(v, refBounds{end: 1 << 32}, 0); !ok {
					b.Fatal("does not decode")
				}
			}
			b.ReportMetric(float64(len(v))/float64(n), "B/ref")
		})
	}
	f("1000", 1000, 9)
	f("100000", 100_000, 9)
	f("1000000", 1_000_000, 9)
	f("1000000/scattered", 1_000_000, 900)
}
