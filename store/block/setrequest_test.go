package block

import (
	"context"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/pagecache"
	"larder/store/catalog"
	"larder/store/indexheader"
)

// testSets returns a cache of series sets.
func testSets(t testing.TB, bytes int64) *SeriesSets {
	t.Helper()
	s := NewSeriesSets(bytes, nil)
	t.Cleanup(s.Close)
	return s
}

// withSets returns a block like b that keeps series sets.
func withSets(b *Block, sets *SeriesSets) *Block {
	deps := *b.deps
	deps.Sets = sets
	return New(b.meta, &deps)
}

// setCase is a request of a test: matchers and options of the stream.
type setCase struct {
	streamCase
	ms []*labels.Matcher
}

// heard is what a request receives and what it is charged for.
type heard struct {
	Series         []streamed
	Postings       int
	Matched        int
	Chunks         int
	Bytes          int64
	StreamMatched  int64
	StreamReturned int64
}

// asking is a running request.
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

// start starts the request's stream. If its set is built, segments have the given number of series;
// 0: as many as usual.
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

// step reads the next segment.
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
			x.Ref = slices.Clone(c.Ref[lo:hi])
			x.Min, x.Max = slices.Clone(c.Min[lo:hi]), slices.Clone(c.Max[lo:hi])
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

// rest reads all remaining segments.
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
		value := []string{".*", "[^y]+|", "x+|", "0|1"}[r.IntN(4)]
		c.ms = append(c.ms, labels.MustNewMatcher(labels.MatchRegexp, "m", value))
	}
	if r.IntN(3) == 0 {
		value := []string{"1", "0", "x"}[r.IntN(3)]
		c.ms = append(c.ms, labels.MustNewMatcher(labels.MatchNotEqual, "a", value))
	}
	return c
}

// variant returns a request for the same set with another time range or shard, or without chunks.
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
	meta := catalog.Block{MinTime: 0, MaxTime: 2000}
	b, _ := openStreamBlock(t, writeStreamIndex(t, series), 512, meta)
	return b
}

// countingHeaders counts acquired headers, and those that are open.
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

// wholeBlock is a request for all series and chunks of a block.
func wholeBlock() *setCase {
	all := StreamOptions{MinTime: math.MinInt64, MaxTime: math.MaxInt64}
	return &setCase{
		streamCase: streamCase{StreamOptions: all}, ms: []*labels.Matcher{everything()},
	}
}

// setBlock opens a block of n series that keeps series sets.
func setBlock(t testing.TB, n int) (*Block, *streamPages, *countingHeaders) {
	t.Helper()
	index := writeStreamIndex(t, wideSeries(n))
	plain, pages := openStreamBlock(t, index, 512, catalog.Block{MaxTime: 2})
	b := withSets(plain, testSets(t, 32<<20))
	h := &countingHeaders{Headers: b.deps.Headers}
	b.deps.Headers = h
	return b, pages, h
}
