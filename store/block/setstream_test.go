package block

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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
	"larder/store/indexheader"
	"larder/store/postings"
)

// testSets returns a cache of series sets.
func testSets(t testing.TB, bytes int64) *SeriesSets {
	t.Helper()
	s := NewSeriesSets(bytes, nil)
	t.Cleanup(s.Close)
	return s
}

// withSets returns a block that differs from b in that it has series sets.
func withSets(b *Block, sets *SeriesSets) *Block {
	deps := *b.deps
	deps.Sets = sets
	return New(b.meta, &deps)
}

// setCase is a request of a test: matchers and what is asked of the stream.
type setCase struct {
	streamCase
	ms []*labels.Matcher
}

// heard is what a request gets, and what it is charged for.
type heard struct {
	Series         []streamed
	Postings       int
	Matched        int
	Chunks         int
	Bytes          int64
	StreamMatched  int64
	StreamReturned int64
}

// asking is a request that runs.
type asking struct {
	t      testing.TB
	c      *setCase
	acct   pagecache.Account
	plan   *Plan
	stream SeriesStream
	heard  heard
	err    error
	over   bool
}

// ask plans a request.
func ask(t testing.TB, b *Block, c *setCase, use SetUse) *asking {
	t.Helper()
	a := &asking{t: t, c: c}
	a.acct.Spend = func(touched, _ int64) error {
		atomic.AddInt64(&a.heard.Bytes, touched)
		return nil
	}
	var err error
	a.plan, err = b.Plan(context.Background(), c.ms, PlanOptions{
		External: c.External, Dropped: c.Dropped, Sets: use, MinTime: c.MinTime, MaxTime: c.MaxTime,
		Account: &a.acct, OnSeries: func(n int) error { a.heard.Postings += n; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// start starts the request's stream. A set that is to be built has segments of so many series, 0
// for as many as usual.
func (a *asking) start(segment int) *asking {
	opts := a.c.StreamOptions
	opts.Account = &a.acct
	opts.OnSeries = func(n int) error { a.heard.Matched += n; return nil }
	opts.OnChunks = func(n int) error { a.heard.Chunks += n; return nil }
	if b := a.plan.build; b != nil && b.stream == nil && segment > 0 {
		b.stream = b.plan.decode(b.ctx, b.opts)
		b.stream.maxSeries = segment
	}
	a.stream = a.plan.Stream(context.Background(), opts)
	return a
}

// step takes the next segment.
func (a *asking) step() {
	seg, err := a.stream.Next()
	if err != nil {
		a.over = true
		if err != io.EOF {
			a.err = err
		}
		a.close()
		return
	}
	if seg.Len() == 0 {
		a.t.Error("an empty segment")
	}
	for i := range seg.Len() {
		x := streamed{Labels: decodeLabels(a.t, seg.Labels(i)).String()}
		lo, hi := seg.ChunkRange(i)
		if c := seg.Chunks(); lo < hi {
			x.Ref, x.Min, x.Max = slices.Clone(c.Ref[lo:hi]), slices.Clone(c.Min[lo:hi]),
				slices.Clone(c.Max[lo:hi])
		}
		a.heard.Series = append(a.heard.Series, x)
	}
}

func (a *asking) close() {
	a.over = true
	a.stream.Close()
	st := a.stream.Stats()
	a.heard.StreamMatched, a.heard.StreamReturned = st.Matched, st.Series
	a.plan.Close()
}

// rest takes all segments that are left.
func (a *asking) rest() *heard {
	a.t.Helper()
	for !a.over {
		a.step()
	}
	if a.err != nil {
		a.t.Fatal(a.err)
	}
	return &a.heard
}

// randomCase returns a request for a block of randomSeries with randomChunks.
func randomCase(r *rand.Rand) *setCase {
	c := &setCase{streamCase: randomStreamCase(r)}
	c.ms = []*labels.Matcher{everything()}
	if r.IntN(3) > 0 {
		c.ms = append(c.ms, labels.MustNewMatcher(labels.MatchRegexp, "m",
			[]string{".*", "[^y]+|", "x+|", "0|1"}[r.IntN(4)]))
	}
	if r.IntN(3) == 0 {
		c.ms = append(c.ms, labels.MustNewMatcher(labels.MatchNotEqual, "a",
			[]string{"1", "0", "x"}[r.IntN(3)]))
	}
	return c
}

// variant returns a request that the same set answers: another time range, shard, or without
// chunks.
func (c *setCase) variant(r *rand.Rand) *setCase {
	v := *c
	v.MinTime, v.MaxTime = math.MinInt64, math.MaxInt64
	if r.IntN(4) > 0 {
		v.MinTime = int64(r.IntN(600)) - 50
		v.MaxTime = v.MinTime + int64(r.IntN(400))
	}
	v.SkipChunks = r.IntN(4) == 0
	if r.IntN(3) == 0 {
		n := uint64(1 + r.IntN(3))
		v.Keep = func(labels []byte) bool { return labelsHash(labels)%n == 0 }
	}
	v.ms = slices.Clone(c.ms)
	r.Shuffle(len(v.ms), func(i, j int) { v.ms[i], v.ms[j] = v.ms[j], v.ms[i] })
	if r.IntN(3) == 0 {
		v.ms = append(v.ms, v.ms[0])
	}
	return &v
}

func labelsHash(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h >> 20
}

// randomBlock writes a block of random series.
func randomBlock(t testing.TB, r *rand.Rand) *Block {
	sets := slices.DeleteFunc(randomSeries(r, 1+r.IntN(120)), labels.Labels.IsEmpty)
	if len(sets) == 0 {
		sets = append(sets, labels.FromStrings("a", "1"))
	}
	series := randomChunks(r, sets)
	b, _ := openStreamBlock(t, writeStreamIndex(t, series), 512,
		catalog.Block{MinTime: 0, MaxTime: 2000})
	return b
}

// TestSetsAnswerLikeStreams puts random requests to blocks with and without series sets. The
// answers must be the same, and what the requests are charged for too: when the set is built, by
// several at once, and when it is kept; where it is too large to be kept, and where its
// construction fails on the way.
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
			others = sets.MaxSetBytes() - int64(r.IntN(8<<10)) // nearly no room
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
				want = append(want, ask(t, plain, v, SetsUnused).start(0).rest())
				running = append(running, ask(t, b, v, SetsBuilt))
			}
			for _, a := range running {
				a.start(1 + r.IntN(7))
			}
			// They go on by turns, and may find that the construction has ended.
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
					t.Fatalf("seed %d, %v, request %d of %d at once (-want +got):\n%s", seed, a.c,
						i, len(running), diff)
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
				w := ask(t, plain, v, SetsUnused).start(0).rest()
				a := ask(t, b, v, SetsFound).start(0)
				if a.plan.set != nil {
					hits++
				}
				if diff := cmp.Diff(w, a.rest()); diff != "" {
					t.Fatalf("seed %d, %v, hit %v (-want +got):\n%s", seed, v, a.plan.set != nil,
						diff)
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
			t.Fatalf("seed %d: %d bytes are still held", seed, n-others)
		}
	}
	t.Logf("%d hits, %d readers of sets under construction, %d of them went on alone, %d saw a set that became too large; %d answers had a part of a set", hits, joined, alone, passed, cut)
	if hits < trials || joined < trials || alone < trials/4 || passed < trials/8 || cut < trials {
		t.Error("the test covers too little")
	}
}

// countingHeaders are headers that count who acquires one.
type countingHeaders struct {
	Headers
	acquired, open atomic.Int64
}

func (h *countingHeaders) Acquire(
	ctx context.Context, src indexheader.Source,
) (*indexheader.Header, func(), error) {
	h.acquired.Add(1)
	h.open.Add(1)
	hdr, release, err := h.Headers.Acquire(ctx, src)
	return hdr, sync.OnceFunc(func() { h.open.Add(-1); release() }), err
}

// wholeBlock asks for everything of a block.
func wholeBlock() *setCase {
	return &setCase{streamCase: streamCase{StreamOptions: StreamOptions{MinTime: math.MinInt64,
		MaxTime: math.MaxInt64}}, ms: []*labels.Matcher{everything()}}
}

// setBlock opens a block of n series with sets, its segments to be of some series each.
func setBlock(t testing.TB, n int) (*Block, *streamPages, *countingHeaders) {
	t.Helper()
	plain, pages := openStreamBlock(t, writeStreamIndex(t, wideSeries(n)), 512,
		catalog.Block{MaxTime: 2})
	b := withSets(plain, testSets(t, 32<<20))
	h := &countingHeaders{Headers: b.deps.Headers}
	b.deps.Headers = h
	return b, pages, h
}

// TestAHitReadsNothing: the second of two requests needs no header, no posting list and no series
// entry.
func TestAHitReadsNothing(t *testing.T) {
	b, pages, headers := setBlock(t, 3000)
	want := ask(t, b, wholeBlock(), SetsBuilt).start(1000).rest()
	read := func(context.Context) error { t.Error("an index page was asked for"); return nil }
	pages.instead = read
	before := headers.acquired.Load()
	c := wholeBlock()
	c.MaxTime = 1
	a := ask(t, b, c, SetsBuilt).start(0)
	if bytes := a.plan.StreamBytes(1 << 20); bytes > 64<<10 {
		t.Errorf("a hit is estimated to hold %d bytes of its own", bytes)
	}
	if diff := cmp.Diff(want, a.rest()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if st := a.stream.Stats(); st.Entries != 0 || st.Series != 3000 || st.Matched != 3000 {
		t.Errorf("stats of a hit: %+v", st)
	}
	if n := a.acct.Touched.Load(); n != 0 {
		t.Errorf("%d index pages count as used", n)
	}
	if n := headers.acquired.Load(); n != before {
		t.Error("a header was acquired")
	}
	if n := headers.open.Load(); n != 0 {
		t.Errorf("%d headers are still in use", n)
	}
	if st := b.deps.Sets.Stats(); st.Requests != 2 || st.Hits != 1 || st.HitBytes < 3000*100 ||
		b.deps.Sets.ReservedBytes() != 0 {
		t.Errorf("%+v, %d bytes under construction", st, b.deps.Sets.ReservedBytes())
	}
}

// TestSetsAreBuiltWhereItPays: at the first request for the whole block or for few series, else at
// the second; never where they would not fit.
func TestSetsAreBuiltWhereItPays(t *testing.T) {
	plain, _ := openStreamBlock(t, writeStreamIndex(t, wideSeries(8000)), 512,
		catalog.Block{MaxTime: 10_000, NumSeries: 8000, NumChunks: 8000})
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
	f("the whole block", 64<<20, 0, 10_000, everything(), SetsBuilt, true)
	f("all time", 64<<20, math.MinInt64, math.MaxInt64, everything(), SetsBuilt, true)
	f("a part", 64<<20, 0, 5_000, everything(), SetsBuilt, false, true, true)
	f("few series", 64<<20, 0, 5_000, few, SetsBuilt, true)
	f("more than fits", 4<<20, 0, 10_000, everything(), SetsBuilt, false, false)
	f("only looked for", 64<<20, 0, 10_000, everything(), SetsFound, false, false)
	f("unused", 64<<20, 0, 10_000, everything(), SetsUnused, false, false)
}

// TestWhatIsAskedForTwiceKeepsItsSet: where the cache is full, and others are built after it, the
// set stays that is built when it is asked for again, or that is known to be asked for. The same
// request planned again asks for it once.
func TestWhatIsAskedForTwiceKeepsItsSet(t *testing.T) {
	plain, _ := openStreamBlock(t, writeStreamIndex(t, wideSeries(8000)), 512,
		catalog.Block{MaxTime: 10_000, NumSeries: 8000, NumChunks: 8000})
	f := func(what string, want bool, requests ...PlanOptions) {
		t.Helper()
		const allowance, size = 6 << 20, 8 << 10
		sets := testSets(t, allowance)
		b := withSets(plain, sets)
		others := uint64(0)
		fill := func() {
			for range allowance / size {
				others++
				sets.Put(
					indexcache.NewSetKey(1, ulid.ULID{1},
						binary.BigEndian.AppendUint64(nil, others)), &seriesSet{}, size, false)()
			}
		}
		plan := func(o PlanOptions) *Plan {
			t.Helper()
			o.MaxTime, o.Account = 10_000, &pagecache.Account{}
			p, err := b.Plan(context.Background(),
				[]*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "a", "0001..")}, o)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		fill()
		for _, o := range requests {
			o.Sets = SetsBuilt
			p := plan(o)
			if p.build == nil {
				t.Errorf("%s: no set is built", what)
			}
			s := p.Stream(context.Background(),
				StreamOptions{MaxTime: 10_000, Account: &pagecache.Account{}})
			for err := error(nil); err == nil; {
				_, err = s.Next()
			}
			s.Close()
			p.Close()
			fill()
		}
		p := plan(PlanOptions{Sets: SetsFound})
		defer p.Close()
		if got := p.set != nil; got != want {
			t.Errorf("%s: its set is kept: %v", what, got)
		}
	}
	f("once", false, PlanOptions{})
	f("twice", true, PlanOptions{}, PlanOptions{})
	f("once, planned again", false, PlanOptions{}, PlanOptions{Repeated: true})
	f("once, known to be asked for", true, PlanOptions{Known: true})
}

// TestRequestsThatDifferShareNoSet: each field that bears on a set's segments is in its key.
func TestRequestsThatDifferShareNoSet(t *testing.T) {
	b := New(&catalog.Block{Number: 7}, &Deps{})
	eq := func(name, value string) *labels.Matcher {
		return labels.MustNewMatcher(labels.MatchEqual, name, value)
	}
	key := func(b *Block, o PlanOptions, ms ...*labels.Matcher) indexcache.SetKey {
		return b.setKey(postings.NewMatcherSet(ms), &o)
	}
	base := key(b, PlanOptions{External: labels.FromStrings("x", "1"), Dropped: []string{"r", "s"}},
		eq("a", "1"), eq("b", "2"))
	f := func(what string, got indexcache.SetKey, same bool) {
		t.Helper()
		if (got == base) != same {
			t.Errorf("%s: the same key: %v, want %v", what, got == base, same)
		}
	}
	ext, dropped := labels.FromStrings("x", "1"), []string{"r", "s"}
	f("order and repeats", key(b, PlanOptions{External: ext, Dropped: []string{"s", "r", "s"}},
		eq("b", "2"), eq("a", "1"), eq("b", "2")), true)
	f("time range", key(b, PlanOptions{External: ext, Dropped: dropped, MinTime: 5, MaxTime: 6},
		eq("a", "1"), eq("b", "2")), true)
	f("a matcher less", key(b, PlanOptions{External: ext, Dropped: dropped}, eq("a", "1")), false)
	f("a matcher's value", key(b, PlanOptions{External: ext, Dropped: dropped}, eq("a", "1"),
		eq("b", "3")), false)
	f("a matcher's name", key(b, PlanOptions{External: ext, Dropped: dropped}, eq("a", "1"),
		eq("c", "2")), false)
	f("a matcher's type", key(b, PlanOptions{External: ext, Dropped: dropped}, eq("a", "1"),
		labels.MustNewMatcher(labels.MatchRegexp, "b", "2")), false)
	f("name and value shifted", key(b, PlanOptions{External: ext, Dropped: dropped}, eq("a1", ""),
		eq("b", "2")), false)
	f("fewer removed", key(b, PlanOptions{External: ext, Dropped: []string{"r"}}, eq("a", "1"),
		eq("b", "2")), false)
	f("others removed", key(b, PlanOptions{External: ext, Dropped: []string{"r", "t"}},
		eq("a", "1"), eq("b", "2")), false)
	f("removed names joined", key(b, PlanOptions{External: ext, Dropped: []string{"rs"}},
		eq("a", "1"), eq("b", "2")), false)
	f("external value",
		key(b, PlanOptions{External: labels.FromStrings("x", "2"), Dropped: dropped}, eq("a", "1"),
			eq("b", "2")), false)
	f("no external", key(b, PlanOptions{Dropped: dropped}, eq("a", "1"), eq("b", "2")), false)
	f("another number", key(New(&catalog.Block{Number: 8}, &Deps{}),
		PlanOptions{External: ext, Dropped: dropped}, eq("a", "1"), eq("b", "2")), false)
	f("another block", key(New(&catalog.Block{Number: 7, ID: [16]byte{1}}, &Deps{}),
		PlanOptions{External: ext, Dropped: dropped}, eq("a", "1"), eq("b", "2")), false)
}

// TestFiftyAtOnceDecodeOnce: identical requests share one stream of the series, whatever pace they
// have.
func TestFiftyAtOnceDecodeOnce(t *testing.T) {
	b, pages, headers := setBlock(t, 600)
	want := ask(t, withSets(b, nil), wholeBlock(), SetsUnused).start(0).rest()
	entries := &atomic.Int64{}
	var asked []*asking
	for range 50 {
		asked = append(asked, ask(t, b, wholeBlock(), SetsBuilt).start(100))
	}
	// The series' first pages are held until all requests wait for them.
	gate, reads := make(chan struct{}), atomic.Int64{}
	pages.instead = func(context.Context) error { reads.Add(1); <-gate; return nil }
	waits := make(chan struct{}, len(asked))
	var wg sync.WaitGroup
	for _, a := range asked {
		wg.Go(func() {
			waits <- struct{}{}
			a.rest()
			entries.Add(a.stream.Stats().Entries)
		})
	}
	for range asked {
		<-waits
	}
	close(gate)
	wg.Wait()
	for _, a := range asked {
		if diff := cmp.Diff(want, &a.heard); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
	touched := int64(0)
	for _, a := range asked {
		touched += a.acct.Touched.Load()
	}
	once := ask(t, withSets(b, nil), wholeBlock(), SetsUnused).start(0)
	once.rest()
	if n := entries.Load(); n != 600 {
		t.Errorf("%d entries were decoded of 600 series", n)
	}
	postings := once.acct.Touched.Load() // of one request: its postings and its series
	if touched >= 2*postings {
		t.Errorf("%d index pages were used, one request alone uses %d", touched, postings)
	}
	if n := headers.open.Load(); n != 0 {
		t.Errorf("%d headers are still in use", n)
	}
	if n := b.deps.Sets.Coalesced(); n != 49 {
		t.Errorf("%d requests count as coalesced, want 49", n)
	}
}

// TestAReaderThatGivesUpOrStalls harms no other, and what was begun for it alone ends with it.
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
	first, second, stalls := ask(t, b, wholeBlock(), SetsBuilt).start(100),
		ask(t, b, wholeBlock(), SetsBuilt).start(100), ask(t, b, wholeBlock(), SetsBuilt).start(100)
	stalls.step()
	ctx, cancel := context.WithCancel(context.Background())
	first.stream = first.plan.Stream(ctx, first.c.StreamOptions)
	for range 3 {
		if _, err := first.stream.Next(); err != nil {
			t.Fatal(err)
		}
	}
	// It gives up while it waits for a read that does not end.
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
		t.Errorf("the one that gave up: %v", err)
	}
	first.close()
	close(gate)
	if n := len(second.rest().Series); n != 3000 {
		t.Errorf("the other got %d series", n)
	}
	if a := ask(t, b, wholeBlock(), SetsBuilt); a.plan.set == nil {
		t.Error("the set was not kept")
	}
	if n := len(stalls.rest().Series); n != 3000 {
		t.Errorf("the one that stalled got %d series", n)
	}
	if n := headers.open.Load(); n != 0 {
		t.Errorf("%d headers are still in use", n)
	}

	// The last reader to leave ends the reads.
	c := wholeBlock()
	c.Dropped = []string{"other"}
	last := ask(t, b, c, SetsBuilt).start(100)
	last.step()
	build := last.plan.build
	last.close()
	if build.ctx.Err() == nil || len(b.builds) != 0 || headers.open.Load() != 0 ||
		b.deps.Sets.ReservedBytes() != 0 || pages.running.Load() != 0 {
		t.Error("the construction goes on without readers")
	}
	if _, _, ok := b.deps.Sets.Get(build.key); ok {
		t.Error("an incomplete set is kept")
	}
}

// TestAnErrorOfTheSharedStream is nobody's but of who meets it himself, and it is not remembered.
func TestAnErrorOfTheSharedStream(t *testing.T) {
	b, pages, headers := setBlock(t, 3000)
	small := wholeBlock()
	small.RunBytes = 8 << 10
	want := ask(t, withSets(b, nil), small, SetsUnused).start(0).rest()
	boom := errors.New("the bucket is on fire")
	fail := atomic.Bool{}
	pages.instead = func(context.Context) error {
		if fail.CompareAndSwap(true, false) {
			return boom
		}
		return nil
	}
	first, second := ask(t, b, small, SetsBuilt).start(100), ask(t, b, small, SetsBuilt).start(100)
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
	a := ask(t, b, small, SetsBuilt)
	if a.plan.set != nil {
		t.Fatal("a part of a set is kept")
	}
	if diff := cmp.Diff(want, a.start(100).rest()); diff != "" {
		t.Errorf("the next request (-want +got):\n%s", diff)
	}
	if a := ask(t, b, wholeBlock(), SetsBuilt); a.plan.set == nil {
		t.Error("the next request's set is not kept")
	}
	if n := headers.open.Load(); n != 0 {
		t.Errorf("%d headers are still in use", n)
	}
}

// TestALimitIsItsRequestsOwn: who exceeds a limit fails, those who read the same set do not.
func TestALimitIsItsRequestsOwn(t *testing.T) {
	b, _, _ := setBlock(t, 1000)
	enough := errors.New("enough")
	for _, kept := range []bool{false, true} {
		limited, free := ask(t, b, wholeBlock(), SetsBuilt).start(100),
			ask(t, b, wholeBlock(), SetsBuilt).start(100)
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
			t.Errorf("kept %v: the other got %d series", kept, n)
		}
	}
	// Bytes and series are charged when a set is found, as when it was made.
	for what, opts := range map[string]PlanOptions{
		"bytes":  {Account: &pagecache.Account{Spend: func(int64, int64) error { return enough }}},
		"series": {OnSeries: func(n int) error { return fmt.Errorf("%d: %w", n, enough) }},
	} {
		opts.Sets = SetsFound
		if _, err := b.Plan(context.Background(), wholeBlock().ms, opts); !errors.Is(err, enough) {
			t.Errorf("a limit on %s: %v", what, err)
		}
	}
}
