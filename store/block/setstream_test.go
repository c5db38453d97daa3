package block

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"larder/indexcache"
	"larder/internal/pagecache"
	"larder/store/catalog"
	"larder/store/postings"
)

// TestSetsAnswerLikeStreams sends random requests to blocks with and without series sets. Answers
// and charges must be the same: while several requests build the set, once it is kept, if it is too
// large to be kept, and if its construction fails.
func TestSetsAnswerLikeStreams(t *testing.T) {
	trials := 80
	if testing.Short() {
		trials = 30
	}
	hits, joined, alone, passed, cut := 0, 0, 0, 0, 0
	for seed := range uint64(trials) {
		r := rand.New(rand.NewPCG(seed, 21))
		plain := randomBlock(t, r)
		size := []int64{8 << 20, 600 << 10}[r.IntN(2)]
		sets := testSets(t, size)
		others := int64(0)
		if r.IntN(3) == 0 {
			others = sets.MaxSetBytes() - int64(r.IntN(8<<10)) // hardly any bytes are free
			sets.TryReserve(others)
		}
		b := withSets(plain, sets)
		for range 4 {
			c := randomCase(r)
			var running []*asking
			var want []*heard
			for range 1 + r.IntN(3) {
				v := c.variant(r)
				v.RunBytes = 1 << 20
				want = append(want, ask(t, plain, v, UseNoSets).start(0).rest())
				running = append(running, ask(t, b, v, BuildSets))
			}
			for _, a := range running {
				a.start(1 + r.IntN(7))
			}
			// They read in turns, and may find that the construction has ended.
			fails := r.IntN(3) == 0
			for n := 0; slices.ContainsFunc(running, func(a *asking) bool { return !a.over }); n++ {
				a := running[r.IntN(len(running))]
				if a.over {
					continue
				}
				if bd := a.plan.build; fails && n == 2 && bd != nil && bd.state == buildGrows {
					bd.cancel()
				}
				a.step()
			}
			for i, a := range running {
				if diff := cmp.Diff(want[i], a.rest()); diff != "" {
					t.Fatalf("seed %d, %v, request %d of %d concurrent ones (-want +got):\n%s",
						seed, a.c, i, len(running), diff)
				}
				if s, ok := a.stream.(*setStream); ok {
					joined++
					if s.own != nil {
						alone++
					}
				}
				if a.plan.build != nil && a.plan.build.base > 0 {
					passed++
				}
			}
			for range 3 {
				v := c.variant(r)
				v.RunBytes = 1 << 20
				w := ask(t, plain, v, UseNoSets).start(0).rest()
				a := ask(t, b, v, UseKeptSets).start(0)
				if a.plan.set != nil {
					hits++
				}
				if diff := cmp.Diff(w, a.rest()); diff != "" {
					t.Fatalf("seed %d, %v, hit %v (-want +got):\n%s",
						seed, v, a.plan.set != nil, diff)
				}
				if n := len(w.Series); n > 0 && n < w.Postings {
					cut++
				}
			}
		}
		if len(b.builds) > 0 {
			t.Fatalf("seed %d: %d sets are still under construction", seed, len(b.builds))
		}
		if n := sets.ReservedBytes(); n != others {
			t.Fatalf("seed %d: %d bytes are still reserved", seed, n-others)
		}
	}
	t.Logf("%d hits, %d readers of sets under construction (%d continued alone, %d saw a set that "+
		"became too large), %d answers with a part of a set",
		hits, joined, alone, passed, cut)
	if hits < trials || joined < trials || alone < trials/4 || passed < trials/8 || cut < trials {
		t.Error("the test covers too little")
	}
}

// TestAHitReadsNothing checks that the second of two requests reads no header, no posting list and
// no series entry.
func TestAHitReadsNothing(t *testing.T) {
	b, pages, headers := setBlock(t, 3000)
	want := ask(t, b, wholeBlock(), BuildSets).start(1000).rest()
	read := func(context.Context) error { t.Error("an index page was read"); return nil }
	pages.instead = read
	before := headers.acquired.Load()
	c := wholeBlock()
	c.MaxTime = 1
	a := ask(t, b, c, BuildSets).start(0)
	if bytes := a.plan.StreamBytes(StreamOptions{RunBytes: 1 << 20}); bytes > 64<<10 {
		t.Errorf("a hit is estimated to need %d bytes, want at most 64 KiB", bytes)
	}
	if diff := cmp.Diff(want, a.rest()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if st := a.stream.Stats(); st.Entries != 0 || st.Series != 3000 || st.Matched != 3000 {
		t.Errorf("stats of a hit: %+v", st)
	}
	if n := a.acct.Touched.Load(); n != 0 {
		t.Errorf("%d index pages count as used, want 0", n)
	}
	if n := headers.acquired.Load(); n != before {
		t.Error("a header was acquired")
	}
	if n := headers.open.Load(); n != 0 {
		t.Errorf("%d headers are still in use", n)
	}
	st, reserved := b.deps.Sets.Stats(), b.deps.Sets.ReservedBytes()
	if st.Requests != 2 || st.Hits != 1 || st.HitBytes < 3000*100 || reserved != 0 {
		t.Errorf("%+v, %d bytes reserved; want 2 requests, 1 hit, 0 bytes", st, reserved)
	}
}

// TestSetsAreBuiltWhereItPays checks that a set is built at the first request for the whole block
// or for few series, otherwise at the second. A set that does not fit is never built.
func TestSetsAreBuiltWhereItPays(t *testing.T) {
	meta := catalog.Block{MaxTime: 10_000, NumSeries: 8000, NumChunks: 8000}
	plain, _ := openStreamBlock(t, writeStreamIndex(t, wideSeries(8000)), 512, meta)
	f := func(
		what string, bytes int64, minT, maxT int64, matcher *labels.Matcher, use SetUse,
		want ...bool,
	) {
		t.Helper()
		b := withSets(plain, testSets(t, bytes))
		c := wholeBlock()
		c.MinTime, c.MaxTime, c.ms = minT, maxT, []*labels.Matcher{matcher}
		for i, w := range want {
			a := ask(t, b, c, use)
			if got := a.plan.build != nil; got != w {
				t.Errorf("%s, request %d: builds %v, want %v", what, i, got, w)
			}
			a.start(0).step()
			a.close()
		}
	}
	few := labels.MustNewMatcher(labels.MatchRegexp, "a", "00012.")
	f("the whole block", 64<<20, 0, 10_000, everything(), BuildSets, true)
	f("all time", 64<<20, math.MinInt64, math.MaxInt64, everything(), BuildSets, true)
	f("a part", 64<<20, 0, 5_000, everything(), BuildSets, false, true, true)
	f("few series", 64<<20, 0, 5_000, few, BuildSets, true)
	f("more than fits", 4<<20, 0, 10_000, everything(), BuildSets, false, false)
	f("only looked for", 64<<20, 0, 10_000, everything(), UseKeptSets, false, false)
	f("unused", 64<<20, 0, 10_000, everything(), UseNoSets, false, false)
}

// TestSetsThatAreRequestedTwiceStay fills the cache before and after a set is built. The set stays
// if it is built at the second request, or if it is known to be requested. A request that is
// planned again counts once.
func TestSetsThatAreRequestedTwiceStay(t *testing.T) {
	meta := catalog.Block{MaxTime: 10_000, NumSeries: 8000, NumChunks: 8000}
	plain, _ := openStreamBlock(t, writeStreamIndex(t, wideSeries(8000)), 512, meta)
	f := func(what string, want bool, requests ...PlanOptions) {
		t.Helper()
		const allowance, size = 6 << 20, 8 << 10
		sets := testSets(t, allowance)
		b := withSets(plain, sets)
		others := uint64(0)
		fill := func() {
			for range allowance / size {
				others++
				what := binary.BigEndian.AppendUint64(nil, others)
				key := indexcache.NewSetKey(1, ulid.ULID{1}, what)
				sets.Put(key, &seriesSet{}, size, false)()
			}
		}
		plan := func(o PlanOptions) *Plan {
			t.Helper()
			o.MaxTime, o.Account = 10_000, &pagecache.Account{}
			m := labels.MustNewMatcher(labels.MatchRegexp, "a", "0001..")
			p, err := b.Plan(context.Background(), []*labels.Matcher{m}, o)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		fill()
		for _, o := range requests {
			o.Sets = BuildSets
			p := plan(o)
			if p.build == nil {
				t.Errorf("%s: no set is built", what)
			}
			s := p.Stream(context.Background(), StreamOptions{
				MaxTime: 10_000, Account: &pagecache.Account{},
			})
			for err := error(nil); err == nil; {
				_, err = s.Next()
			}
			s.Close()
			p.Close()
			fill()
		}
		p := plan(PlanOptions{Sets: UseKeptSets})
		defer p.Close()
		if got := p.set != nil; got != want {
			t.Errorf("%s: the set is kept: %v, want %v", what, got, want)
		}
	}
	f("once", false, PlanOptions{})
	f("twice", true, PlanOptions{}, PlanOptions{})
	f("once, planned again", false, PlanOptions{}, PlanOptions{Repeated: true})
	f("once, known to be requested", true, PlanOptions{Known: true})
}

// TestRequestsThatDifferShareNoSet checks that all that bears on a set's segments is in its key.
func TestRequestsThatDifferShareNoSet(t *testing.T) {
	b := New(&catalog.Block{Number: 7}, &Deps{})
	eq := func(name, value string) *labels.Matcher {
		return labels.MustNewMatcher(labels.MatchEqual, name, value)
	}
	key := func(b *Block, o PlanOptions, ms ...*labels.Matcher) indexcache.SetKey {
		return b.setKey(postings.NewMatcherSet(ms), &o)
	}
	ext, dropped := labels.FromStrings("x", "1"), []string{"r", "s"}
	o := PlanOptions{External: ext, Dropped: dropped}
	a1, b2 := eq("a", "1"), eq("b", "2")
	base := key(b, o, a1, b2)
	f := func(what string, got indexcache.SetKey, same bool) {
		t.Helper()
		if (got == base) != same {
			t.Errorf("%s: the same key: %v, want %v", what, got == base, same)
		}
	}
	repeats := PlanOptions{External: ext, Dropped: []string{"s", "r", "s"}}
	f("order and repeats", key(b, repeats, b2, a1, b2), true)
	f("time range", key(b, PlanOptions{
		External: ext, Dropped: dropped, MinTime: 5, MaxTime: 6,
	}, a1, b2), true)
	f("one matcher less", key(b, o, a1), false)
	f("a matcher's value", key(b, o, a1, eq("b", "3")), false)
	f("a matcher's name", key(b, o, a1, eq("c", "2")), false)
	f("a matcher's type", key(b, o, a1, labels.MustNewMatcher(labels.MatchRegexp, "b", "2")), false)
	f("name and value shifted", key(b, o, eq("a1", ""), b2), false)
	drop := func(names ...string) PlanOptions { return PlanOptions{External: ext, Dropped: names} }
	f("fewer removed", key(b, drop("r"), a1, b2), false)
	f("others removed", key(b, drop("r", "t"), a1, b2), false)
	f("removed names joined", key(b, drop("rs"), a1, b2), false)
	other := PlanOptions{External: labels.FromStrings("x", "2"), Dropped: dropped}
	f("external value", key(b, other, a1, b2), false)
	f("no external", key(b, PlanOptions{Dropped: dropped}, a1, b2), false)
	f("another number", key(New(&catalog.Block{Number: 8}, &Deps{}), o, a1, b2), false)
	another := New(&catalog.Block{Number: 7, ID: [16]byte{1}}, &Deps{})
	f("another block", key(another, o, a1, b2), false)
}

// TestFiftyAtOnceDecodeOnce checks that identical requests share one stream of the series, whatever
// their pace.
func TestFiftyAtOnceDecodeOnce(t *testing.T) {
	b, pages, headers := setBlock(t, 600)
	want := ask(t, withSets(b, nil), wholeBlock(), UseNoSets).start(0).rest()
	entries := &atomic.Int64{}
	var requests []*asking
	for range 50 {
		requests = append(requests, ask(t, b, wholeBlock(), BuildSets).start(100))
	}
	// The first read waits until all requests have started.
	gate, reads := make(chan struct{}), atomic.Int64{}
	pages.instead = func(context.Context) error { reads.Add(1); <-gate; return nil }
	waits := make(chan struct{}, len(requests))
	var wg sync.WaitGroup
	for _, a := range requests {
		wg.Go(func() {
			waits <- struct{}{}
			a.rest()
			entries.Add(a.stream.Stats().Entries)
		})
	}
	for range requests {
		<-waits
	}
	close(gate)
	wg.Wait()
	for _, a := range requests {
		if diff := cmp.Diff(want, &a.heard); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
	touched := int64(0)
	for _, a := range requests {
		touched += a.acct.Touched.Load()
	}
	once := ask(t, withSets(b, nil), wholeBlock(), UseNoSets).start(0)
	once.rest()
	if n := entries.Load(); n != 600 {
		t.Errorf("%d entries were decoded, want 600", n)
	}
	alone := once.acct.Touched.Load() // by one request: posting lists and series
	if touched >= 2*alone {
		t.Errorf("%d index pages were used, one request alone uses %d", touched, alone)
	}
	if n := headers.open.Load(); n != 0 {
		t.Errorf("%d headers are still in use", n)
	}
	if n := b.deps.Sets.Coalesced(); n != 49 {
		t.Errorf("%d requests count as coalesced, want 49", n)
	}
}

// TestAReaderThatGivesUpOrStalls checks that such a reader does not delay the others. A
// construction ends with its last reader.
func TestAReaderThatGivesUpOrStalls(t *testing.T) {
	b, pages, headers := setBlock(t, 3000)
	hold, gate, stuck := atomic.Bool{}, make(chan struct{}), make(chan struct{})
	var once sync.Once
	pages.instead = func(context.Context) error {
		if hold.Load() {
			once.Do(func() { close(stuck) })
			<-gate
		}
		return nil
	}
	small := wholeBlock()
	small.RunBytes = 8 << 10 // of many reads, one follows after hold is set
	start := func() *asking { return ask(t, b, small, BuildSets).start(100) }
	first, second, stalls := start(), start(), start()
	stalls.step()
	ctx, cancel := context.WithCancel(context.Background())
	first.stream = first.plan.Stream(ctx, first.c.StreamOptions)
	for range 3 {
		if _, err := first.stream.Next(); err != nil {
			t.Fatal(err)
		}
	}
	// The first gives up while it waits for a read that does not end.
	hold.Store(true)
	gone := make(chan error)
	go func() {
		for {
			if _, err := first.stream.Next(); err != nil {
				gone <- err
				return
			}
		}
	}()
	<-stuck
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("the request that gave up got %v, want %v", err, context.Canceled)
	}
	first.close()
	close(gate)
	if n := len(second.rest().Series); n != 3000 {
		t.Errorf("the other got %d series, want 3000", n)
	}
	if a := ask(t, b, wholeBlock(), BuildSets); a.plan.set == nil {
		t.Error("the set was not kept")
	}
	if n := len(stalls.rest().Series); n != 3000 {
		t.Errorf("the request that stalled got %d series, want 3000", n)
	}
	if n := headers.open.Load(); n != 0 {
		t.Errorf("%d headers are still in use", n)
	}

	// The last reader to leave ends the reads.
	c := wholeBlock()
	c.Dropped = []string{"other"}
	last := ask(t, b, c, BuildSets).start(100)
	last.step()
	build := last.plan.build
	last.close()
	if build.ctx.Err() == nil || len(b.builds) != 0 || headers.open.Load() != 0 ||
		b.deps.Sets.ReservedBytes() != 0 || pages.running.Load() != 0 {
		t.Error("the construction continues without readers")
	}
	if _, _, ok := b.deps.Sets.Get(build.key); ok {
		t.Error("an incomplete set is kept")
	}
}

// TestAnErrorOfTheSharedStream checks that readers survive it, and that it is not remembered.
func TestAnErrorOfTheSharedStream(t *testing.T) {
	b, pages, headers := setBlock(t, 3000)
	small := wholeBlock()
	small.RunBytes = 8 << 10
	want := ask(t, withSets(b, nil), small, UseNoSets).start(0).rest()
	boom := errors.New("bucket is away")
	fail := atomic.Bool{}
	pages.instead = func(context.Context) error {
		if fail.CompareAndSwap(true, false) {
			return boom
		}
		return nil
	}
	first := ask(t, b, small, BuildSets).start(100)
	second := ask(t, b, small, BuildSets).start(100)
	for range 4 {
		first.step()
	}
	second.step()
	fail.Store(true)
	if diff := cmp.Diff(want, first.rest()); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, second.rest()); diff != "" {
		t.Errorf("second (-want +got):\n%s", diff)
	}
	if first.stream.(*setStream).own == nil || second.stream.(*setStream).own == nil {
		t.Error("the stream did not fail: the test shows nothing")
	}
	a := ask(t, b, small, BuildSets)
	if a.plan.set != nil {
		t.Fatal("a part of a set is kept")
	}
	if diff := cmp.Diff(want, a.start(100).rest()); diff != "" {
		t.Errorf("the next request (-want +got):\n%s", diff)
	}
	if a := ask(t, b, wholeBlock(), BuildSets); a.plan.set == nil {
		t.Error("the next request's set is not kept")
	}
	if n := headers.open.Load(); n != 0 {
		t.Errorf("%d headers are still in use", n)
	}
}

// TestALimitIsItsRequestsOwn checks that a request which exceeds a limit fails, and that others
// which read the same set do not.
func TestALimitIsItsRequestsOwn(t *testing.T) {
	b, _, _ := setBlock(t, 1000)
	enough := errors.New("enough")
	for _, kept := range []bool{false, true} {
		limited := ask(t, b, wholeBlock(), BuildSets).start(100)
		free := ask(t, b, wholeBlock(), BuildSets).start(100)
		if got := free.plan.set != nil; got != kept {
			t.Fatalf("answered by a kept set: %v, want %v", got, kept)
		}
		opts := limited.c.StreamOptions
		chunks := 0
		opts.OnChunks = func(n int) error {
			if chunks += n; chunks > 250 {
				return enough
			}
			return nil
		}
		limited.stream = limited.plan.Stream(context.Background(), opts)
		for !limited.over {
			limited.step()
		}
		if !errors.Is(limited.err, enough) {
			t.Errorf("kept %v: got %v, want the limit's error", kept, limited.err)
		}
		if n := len(free.rest().Series); n != 1000 {
			t.Errorf("kept %v: the other got %d series, want 1000", kept, n)
		}
	}
	// A request that finds a set is charged for its bytes and series.
	for what, opts := range map[string]PlanOptions{
		"bytes":  {Account: &pagecache.Account{Spend: func(int64, int64) error { return enough }}},
		"series": {OnSeries: func(n int) error { return fmt.Errorf("%d: %w", n, enough) }},
	} {
		opts.Sets = UseKeptSets
		if _, err := b.Plan(context.Background(), wholeBlock().ms, opts); !errors.Is(err, enough) {
			t.Errorf("a limit on %s: got %v, want %v", what, err, enough)
		}
	}
}
