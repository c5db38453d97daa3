package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"
	"go.uber.org/goleak"

	"larder/internal/bytecache"
	"larder/internal/pagecache"
	"larder/internal/panics"
	"larder/internal/tsdbfmt"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/postings"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// streamSeries is a series of a test's block: its labels and its chunk metas, with the true length
// of every record.
type streamSeries struct {
	labels labels.Labels
	metas  []chunks.Meta
	length []int64
}

// randomChunks gives every series chunks in ascending order of time, with gaps, whose records
// follow one another over several files.
func randomChunks(r *rand.Rand, sets []labels.Labels) []streamSeries {
	file, off := uint64(0), uint64(8)
	var out []streamSeries
	for _, ls := range sets {
		s := streamSeries{labels: ls}
		at := int64(r.IntN(500))
		for range r.IntN(6) {
			if r.IntN(40) == 0 {
				file, off = file+1, 8
			}
			length, span := uint64(10+r.IntN(3000)), int64(r.IntN(100))
			s.metas = append(
				s.metas,
				chunks.Meta{Ref: chunks.ChunkRef(file<<32 | off), MinTime: at, MaxTime: at + span},
			)
			s.length = append(s.length, int64(length))
			at += span + 1 + int64(r.IntN(100))
			off += length
		}
		out = append(out, s)
	}
	return out
}

// writeStreamIndex writes series, which are sorted, with Prometheus's own writer.
func writeStreamIndex(t testing.TB, series []streamSeries) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "index")
	w, err := index.NewWriter(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	var symbols []string
	for _, s := range series {
		s.labels.Range(func(l labels.Label) { symbols = append(symbols, l.Name, l.Value) })
	}
	slices.Sort(symbols)
	for _, s := range slices.Compact(symbols) {
		if err := w.AddSymbol(s); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range series {
		if err := w.AddSeries(storage.SeriesRef(i), s.labels, s.metas...); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// streamPages are index pages that count concurrent reads, and call instead ahead of each Fetch.
type streamPages struct {
	*pagecache.Reader
	size    int64
	running atomic.Int64
	fetched atomic.Int64 // the most pages of one Fetch
	instead func(ctx context.Context) error
}

func (p *streamPages) Object(uint32, ulid.ULID, uint64, int64) pagecache.Object {
	return pagecache.Object{Name: "BLOCK/index", Size: p.size, ID: 1 << 14}
}

func (p *streamPages) Fetch(
	ctx context.Context, obj pagecache.Object, spans []pagecache.Span, acct *pagecache.Account,
) (*pagecache.Pages, error) {
	p.running.Add(1)
	defer p.running.Add(-1)
	if p.instead != nil {
		if err := p.instead(ctx); err != nil {
			return nil, err
		}
	}
	pages, err := p.Reader.Fetch(ctx, obj, spans, acct)
	if err == nil {
		p.fetched.Store(max(p.fetched.Load(), pages.PinnedBytes()/int64(p.PageSize())))
	}
	return pages, err
}

// bucketOf returns a bucket with one object.
func bucketOf(t testing.TB, name string, data []byte) objstore.Bucket {
	t.Helper()
	b := objstore.NewInMemBucket()
	if err := b.Upload(context.Background(), name, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return b
}

// pageMap is a cache that keeps all pages.
type pageMap struct {
	mu    sync.Mutex
	pages map[uint64][]byte
}

func (c *pageMap) Get(key uint64) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.pages[key]
	return b, ok
}

func (c *pageMap) Set(key bytecache.Key, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pages[key.Local] = value
}

func (c *pageMap) Del(key bytecache.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pages, key.Local)
}

func (c *pageMap) Fetch(context.Context, []bytecache.Key, [][]byte) (none bytecache.Found) {
	return none
}

func (c *pageMap) Remote() bool { return false }

// openStreamBlock opens an index in memory as a block.
func openStreamBlock(
	t testing.TB, data []byte, pageSize int, meta catalog.Block,
) (*Block, *streamPages) {
	t.Helper()
	bucket := bucketOf(t, "BLOCK/index", data)
	headers, err := indexheader.New(
		indexheader.Options{Bucket: bucketOf(t, ulid.ULID{1}.String()+"/index", data)},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(headers.Close)
	r := pagecache.New(
		bucket, &pageMap{pages: map[uint64][]byte{}}, pagecache.Options{PageSize: pageSize},
	)
	t.Cleanup(r.Close)
	pages := &streamPages{Reader: r, size: int64(len(data))}
	meta.ID, meta.IndexSize = ulid.ULID{1}, int64(len(data))
	return New(&meta, &Deps{Headers: headers, Index: pages, Buffers: &Buffers{}}), pages
}

// everything is a matcher that all series match.
func everything() *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, "nosuchlabel", "")
}

// planStream plans matchers: by their postings, or all of them left to the series.
func planStream(t testing.TB, b *Block, ms []*labels.Matcher, lazy bool) *Plan {
	t.Helper()
	ask := ms
	if lazy {
		ask = []*labels.Matcher{everything()}
	} else {
		b.emptyLazy = map[uint64]struct{}{postings.NewMatcherSet(ms).Hash(): {}} // plans eagerly
	}
	p, err := b.Plan(context.Background(), ask, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if lazy {
		p.pending = ms
	}
	return p
}

// streamed is a series as a stream returns it.
type streamed struct {
	Labels   string
	Ref      []uint64
	Min, Max []int64
}

// streamCase is what a test asks of a stream, the final labels included, which are its plan's.
type streamCase struct {
	StreamOptions
	External labels.Labels
	Dropped  []string
}

// randomStreamCase returns a time range and labels for a block of randomSeries with randomChunks.
func randomStreamCase(r *rand.Rand) streamCase {
	c := streamCase{External: randomExternal(r)}
	c.MinTime = int64(r.IntN(600)) - 50
	c.MaxTime = c.MinTime + int64(r.IntN(700))
	if r.IntN(4) == 0 {
		c.MinTime, c.MaxTime = math.MinInt64, math.MaxInt64
	}
	if r.IntN(4) == 0 {
		c.Dropped = []string{"m", "absent"}
	}
	if r.IntN(6) == 0 {
		c.External = labels.FromStrings("aa", "over", "zzz", "e")
	}
	return c
}

// stream starts a stream that decodes a plan's series.
func (c *streamCase) stream(p *Plan) *Stream {
	p.external, p.dropped = c.External, c.Dropped
	p.sorted = p.irregular || clashes(p.header.LabelNames(), p.external, p.dropped)
	return p.Stream(context.Background(), c.StreamOptions).(*Stream)
}

// wantStream computes an answer from the series themselves.
func wantStream(series []streamSeries, ms []*labels.Matcher, o streamCase) []streamed {
	type item struct {
		ls labels.Labels
		s  streamed
	}
	var items []item
	for _, s := range series {
		if slices.ContainsFunc(
			ms, func(m *labels.Matcher) bool { return !m.Matches(s.labels.Get(m.Name)) },
		) {
			continue
		}
		it := item{}
		for _, m := range s.metas {
			if m.MaxTime >= o.MinTime && m.MinTime <= o.MaxTime {
				it.s.Ref, it.s.Min, it.s.Max = append(
					it.s.Ref, uint64(m.Ref),
				), append(
					it.s.Min, m.MinTime,
				), append(
					it.s.Max, m.MaxTime,
				)
			}
		}
		if it.s.Ref == nil {
			continue
		}
		it.s.Labels = wantOrder([]labels.Labels{s.labels}, o.External, o.Dropped)[0]
		sb := labels.NewScratchBuilder(8)
		s.labels.Range(func(l labels.Label) {
			if !o.External.Has(l.Name) && !slices.Contains(o.Dropped, l.Name) {
				sb.Add(l.Name, l.Value)
			}
		})
		o.External.Range(func(l labels.Label) { sb.Add(l.Name, l.Value) })
		sb.Sort()
		it.ls = sb.Labels()
		if o.SkipChunks {
			it.s.Ref, it.s.Min, it.s.Max = nil, nil, nil
		}
		items = append(items, it)
	}
	slices.SortStableFunc(items, func(a, b item) int { return labels.Compare(a.ls, b.ls) })
	var out []streamed
	for _, it := range items {
		out = append(out, it.s)
	}
	return out
}

// readStream reads a stream to its end.
func readStream(t *testing.T, s SeriesStream) (out []streamed, metas tsdbfmt.ChunkMetas) {
	t.Helper()
	defer s.Close()
	for {
		seg, err := s.Next()
		if err == io.EOF {
			return out, metas
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range seg.Len() {
			x := streamed{Labels: decodeLabels(t, seg.Labels(i)).String()}
			lo, hi := seg.ChunkRange(i)
			c := seg.Chunks()
			if lo < hi {
				x.Ref, x.Min, x.Max = slices.Clone(
					c.Ref[lo:hi],
				), slices.Clone(
					c.Min[lo:hi],
				), slices.Clone(
					c.Max[lo:hi],
				)
				metas.AppendRange(c, lo, hi)
			}
			out = append(out, x)
		}
	}
}

// TestStreamWhateverItsSizes reads random blocks through streams whose runs, segments, pages,
// expectations and symbol tables are of any size. The answer must be the one computed from the
// series themselves, and every length bound must be one.
func TestStreamWhateverItsSizes(t *testing.T) {
	trials := 60
	if testing.Short() {
		trials = 30
	}
	filtered, clashed, nested := 0, 0, 0
	for seed := range uint64(trials) {
		r := rand.New(rand.NewPCG(seed, 7))
		sets := slices.DeleteFunc(randomSeries(r, 1+r.IntN(120)), labels.Labels.IsEmpty)
		if len(sets) == 0 {
			continue
		}
		series := randomChunks(r, sets)
		data := writeStreamIndex(t, series)
		if r.IntN(4) == 0 {
			data[4] = 3 // format V3 differs in its version alone
		}
		pick := func(of ...int64) int64 { return of[r.IntN(len(of))] }
		b, _ := openStreamBlock(
			t, data, int(pick(512, 1024, 8192)),
			catalog.Block{SeriesMaxSize: pick(0, 1, 30, 1<<20)},
		)
		length := map[uint64]int64{}
		for _, s := range series {
			for i, m := range s.metas {
				length[uint64(m.Ref)] = s.length[i]
			}
		}
		for range 4 {
			o := randomStreamCase(r)
			o.RunBytes, o.SkipChunks = pick(1, 100, 1000, 1<<20), r.IntN(5) == 0
			matched, counted := 0, 0
			o.OnSeries = func(n int) error { matched += n; return nil }
			o.OnChunks = func(n int) error { counted += n; return nil }
			ms := []*labels.Matcher{everything()}
			if r.IntN(2) == 0 {
				// (Of l="", l!="" and l=~".+" the index and the series may say different things
				// where values are empty: TestPostings... has those.)
				ms = []*labels.Matcher{
					labels.MustNewMatcher(
						labels.MatchType(r.IntN(2)), "a", []string{"1", "0", "x"}[r.IntN(3)],
					),
					labels.MustNewMatcher(
						labels.MatchRegexp, "m", []string{".*", "[^y]+|", "x+|", "0|1"}[r.IntN(4)],
					),
				}
			}
			lazy := r.IntN(2) == 0
			p := planStream(t, b, ms, lazy)
			s := o.stream(p)
			s.maxSeries, s.maxEntryBytes = int(
				pick(1, 2, 3, 17, segmentSeries),
			), int(
				pick(1, 50, segmentEntryBytes),
			)
			s.syms.limit, s.lay.limit = pick(0, 40, 1<<20), int(pick(0, 60, 1<<20))
			got, metas := readStream(t, s)
			p.Close()
			want := wantStream(series, ms, o)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("seed %d, %v, lazy %v, %+v (-want +got):\n%s", seed, ms, lazy, o, diff)
			}
			for i, ref := range metas.Ref {
				if bound := int64(metas.Bound[i]); bound != 0 && bound < length[ref] {
					t.Fatalf(
						"seed %d: record at %x has %d bytes, its bound is %d", seed, ref,
						length[ref], bound,
					)
				}
			}
			if counted != metas.Len() {
				t.Errorf("seed %d: %d chunks counted, %d returned", seed, counted, metas.Len())
			}
			if lazy && matched != len(want) {
				t.Errorf("seed %d: %d series counted, %d returned", seed, matched, len(want))
			}
			if st := s.Stats(); st.Matched != int64(len(want)) || st.Series != int64(len(want)) {
				t.Errorf("seed %d: stats %+v for %d series", seed, st, len(want))
			}
			if len(want) > 0 && len(want) < len(series) {
				filtered++
			}
			if s.names.clash {
				clashed++
			} else if !o.External.IsEmpty() && len(want) > 1 {
				nested++
			}
		}
	}
	t.Logf("%d answers have a part of the series, %d were sorted in memory, %d were reordered",
		filtered, clashed, nested)
	if filtered < trials/2 || clashed < trials/8 || nested < trials/2 {
		t.Error("the test covers too little")
	}
}

// TestStreamCountsTheChunksOfItsShard checks that chunks of series in other shards do not count.
func TestStreamCountsTheChunksOfItsShard(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	series := randomChunks(r, slices.DeleteFunc(randomSeries(r, 100), labels.Labels.IsEmpty))
	b, _ := openStreamBlock(t, writeStreamIndex(t, series), 512, catalog.Block{})
	p := planStream(t, b, []*labels.Matcher{everything()}, false)
	defer p.Close()
	counted, n := 0, 0
	s := p.Stream(context.Background(), StreamOptions{
		MinTime: math.MinInt64, MaxTime: math.MaxInt64,
		Keep:     func([]byte) bool { n++; return n%3 == 0 },
		OnChunks: func(n int) error { counted += n; return nil },
	})
	_, metas := readStream(t, s)
	if counted != metas.Len() || counted == 0 {
		t.Errorf("%d chunks counted, %d returned", counted, metas.Len())
	}
	if st := s.Stats(); st.Series >= st.Matched {
		t.Errorf("%d series returned of %d that match", st.Series, st.Matched)
	}
}

// wideSeries makes n series with long labels, one chunk each.
func wideSeries(n int) []streamSeries {
	var out []streamSeries
	for i := range n {
		var ls []string
		for j := range 20 {
			ls = append(ls, fmt.Sprintf("label_%02d", j), fmt.Sprintf("value_%d_%d", j, i%7))
		}
		ls = append(ls, "a", fmt.Sprintf("%06d", i), "tenth", fmt.Sprint(i%10))
		out = append(
			out,
			streamSeries{
				labels: labels.FromStrings(ls...),
				metas:  []chunks.Meta{{Ref: chunks.ChunkRef(8 + 100*i), MaxTime: 1}},
				length: []int64{100},
			},
		)
	}
	return out
}

// TestRunsAreBoundedByTheirPages reads series that lie a page apart. A run needs whole pages for
// them.
func TestRunsAreBoundedByTheirPages(t *testing.T) {
	const page, runBytes = 512, 64 << 10
	b, pages := openStreamBlock(
		t, writeStreamIndex(t, wideSeries(20_000)), page,
		catalog.Block{NumSeries: 20_000, SeriesMaxSize: 80},
	)
	ms := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "tenth", "3")}
	p := planStream(t, b, ms, false)
	defer p.Close()
	pages.fetched.Store(0)
	estimate := p.StreamBytes(StreamOptions{RunBytes: runBytes})
	got, _ := readStream(
		t, p.Stream(context.Background(), StreamOptions{MaxTime: 1, RunBytes: runBytes}),
	)
	if len(got) != 2000 {
		t.Fatalf("%d series, want 2000", len(got))
	}
	most := pages.fetched.Load() * page
	if most > maxRunPages*runBytes+page {
		t.Errorf("a run pins %d bytes, more than %d times its %d", most, maxRunPages, runBytes)
	}
	if most < runBytes {
		t.Errorf("a run pins %d bytes of %d: scattered series take too many reads", most, runBytes)
	}
	if estimate < 2*most {
		t.Errorf(
			"the stream was estimated to hold %d bytes, two runs of it are %d", estimate, 2*most,
		)
	}
	small := planStream(
		t, b, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "a", "000777")}, false,
	)
	defer small.Close()
	if n := small.StreamBytes(StreamOptions{RunBytes: 1 << 20}); n > 32<<10 {
		t.Errorf("one series is estimated to take %d bytes", n)
	}
}

// TestWhatStreamsOfOneSeriesHold measures streams after their only segment, as most streams of a
// request are. They hold what is estimated, within a factor of three.
func TestWhatStreamsOfOneSeriesHold(t *testing.T) {
	const n = 500
	opts := StreamOptions{MaxTime: 1, RunBytes: 1 << 20}
	b, _ := openStreamBlock(
		t, writeStreamIndex(t, wideSeries(20_000)), 8<<10, catalog.Block{NumSeries: 20_000},
	)
	p := planStream(
		t, b, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "a", "000777")}, false,
	)
	defer p.Close()
	var segments []*Segment
	var streams []SeriesStream
	before := liveHeap()
	for range n {
		s := p.Stream(context.Background(), opts)
		seg, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		segments, streams = append(segments, seg), append(streams, s)
	}
	took := (int64(liveHeap()) - int64(before)) / n
	estimate := p.StreamBytes(opts) - p.PassingBytes(opts)
	t.Logf(
		"a stream holds %d bytes, estimated %d, and %d until its first segment is there", took,
		estimate, p.PassingBytes(opts),
	)
	if took > estimate || took < estimate/3 {
		t.Errorf("a stream holds %d bytes, estimated %d", took, estimate)
	}
	for i, s := range streams {
		if segments[i].Len() != 1 {
			t.Errorf("a segment of %d series", segments[i].Len())
		}
		s.Close()
	}
}

func liveHeap() uint64 {
	runtime.GC()
	// what a sync.Pool drops in the first, buffers of reads above all, is freed in the second
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestCloseWaitsForReads closes a stream in the middle of the read of its next run.
func TestCloseWaitsForReads(t *testing.T) {
	b, pages := openStreamBlock(t, writeStreamIndex(t, wideSeries(2000)), 512, catalog.Block{})
	p := planStream(t, b, []*labels.Matcher{everything()}, false)
	defer p.Close()
	var reads atomic.Int64
	stuck := make(chan struct{})
	pages.instead = func(ctx context.Context) error {
		if reads.Add(1) == 1 {
			return nil
		}
		close(stuck)
		<-ctx.Done()
		return ctx.Err()
	}
	s := p.Stream(context.Background(), StreamOptions{MaxTime: 1, RunBytes: 1000})
	if _, err := s.Next(); err != nil {
		t.Fatal(err)
	}
	<-stuck
	s.Close()
	if n := pages.running.Load(); n != 0 {
		t.Errorf("%d reads still run", n)
	}
	if _, err := s.Next(); !errors.Is(err, context.Canceled) {
		t.Errorf("after Close: %v", err)
	}
	s.Close()
}

// TestAPanicOfAReadIsAnError checks that the error of a panic does not contain its stack.
func TestAPanicOfAReadIsAnError(t *testing.T) {
	b, pages := openStreamBlock(t, writeStreamIndex(t, wideSeries(10)), 512, catalog.Block{})
	p := planStream(t, b, []*labels.Matcher{everything()}, false)
	defer p.Close()
	pages.instead = func(context.Context) error { panic("boom") }
	s := p.Stream(context.Background(), StreamOptions{MaxTime: 1})
	defer s.Close()
	_, err := s.Next()
	var pe *panics.Error
	if !errors.As(err, &pe) || len(pe.Stack) == 0 {
		t.Fatalf("got %v, want a panic with a stack", err)
	}
	if strings.Contains(err.Error(), "goroutine") {
		t.Errorf("the error contains the stack: %v", err)
	}
}

// TestLabelsOfASeriesAreBounded checks that a series with too many bytes of labels is an error that
// names its entry.
func TestLabelsOfASeriesAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("an index of 70 MB")
	}
	value := func(k int) string { return fmt.Sprintf("%03d%s", k, strings.Repeat("v", 1<<20)) }
	wide := func(name string, n int, value func(k int) string) labels.Labels {
		ls := []string{"a", name}
		for k := range n {
			ls = append(ls, fmt.Sprintf("z%03d", k), value(k))
		}
		return labels.FromStrings(ls...)
	}
	metas := []chunks.Meta{{Ref: 8}}
	for what, long := range map[string]labels.Labels{
		"one value":    wide("2", 65, func(int) string { return value(0) }),
		"a value each": wide("2", 65, value),
	} {
		series := []streamSeries{
			{labels: wide("1", 3, value), metas: metas},
			{labels: long, metas: metas},
			{labels: wide("3", 1, value), metas: metas},
		}
		b, _ := openStreamBlock(t, writeStreamIndex(t, series), 8<<10, catalog.Block{})
		p := planStream(t, b, []*labels.Matcher{everything()}, false)
		var bytes testReserver
		s := p.Stream(context.Background(), StreamOptions{MaxTime: 1, Reserver: &bytes})
		seg, err := s.Next()
		if err == nil {
			if seg.Len() != 1 {
				t.Errorf("%s: a segment of %d series", what, seg.Len())
			}
			_, err = s.Next()
		}
		var e *Error
		if !errors.As(err, &e) || e.ID != b.meta.ID ||
			!strings.Contains(err.Error(), "/index: series entry at offset ") ||
			!strings.Contains(err.Error(), "more than the 67108864") {
			t.Errorf("%s: got %v", what, err)
		}
		s.Close()
		if bytes.reserved != 0 || bytes.most < 3<<20 || bytes.most > maxSeriesLabels {
			t.Errorf("%s: reserved at most %d bytes, and %d after Close; want 0 after Close",
				what, bytes.most, bytes.reserved)
		}
		p.Close()
	}
}
