package block

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/bucket/cost"
	"larder/internal/pagecache"
	"larder/internal/panics"
	"larder/internal/telemetry"
	"larder/internal/tsdbfmt"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/postings"
)

// Headers opens index headers: *indexheader.Manager.
type Headers interface {
	Acquire(
		ctx context.Context, src indexheader.Source,
	) (h *indexheader.Header, release func(), err error)
}

// Pages reads an object through pages: indexcache.Cache and chunkcache.Cache.
type Pages interface {
	Fetch(
		ctx context.Context, obj pagecache.Object, spans []pagecache.Span, acct *pagecache.Account,
	) (*pagecache.Pages, error)
	Refetch(
		ctx context.Context, obj pagecache.Object, span pagecache.Span, acct *pagecache.Account,
	) (*pagecache.Pages, error)
	// Estimate says what Fetch would read, and reads nothing.
	Estimate(obj pagecache.Object, spans []pagecache.Span) (pagecache.Estimate, error)
	// Warm reads pages into the cache before a request needs them.
	Warm(
		ctx context.Context, obj pagecache.Object, spans []pagecache.Span, how pagecache.Warming,
		acct *pagecache.Account,
	) error
}

// IndexPages reads index files.
type IndexPages interface {
	Pages
	Object(number uint32, id ulid.ULID, content uint64, size int64) pagecache.Object
}

// ChunkPages reads chunk files.
type ChunkPages interface {
	Pages
	Object(
		number uint32, id ulid.ULID, content uint64, file int, name string, size int64,
	) pagecache.Object
	// InMemory reports whether the page at off is in memory.
	InMemory(obj pagecache.Object, off int64) bool
}

// Deps are shared by the blocks of a process.
type Deps struct {
	Headers Headers
	Index   IndexPages
	Chunks  ChunkPages
	Lister  Lister
	// Sizes returns the sizes of a block's files if they are unknown or proved wrong. nil:
	// meta.json is believed.
	Sizes Measurer
	// Costs says what reads of the bucket cost. nil: the defaults of cost.Model.
	Costs *cost.Meter
	// Postings keeps expanded postings. nil: none are kept, and requests share no expansion.
	Postings postings.Cache
	// Irregular remembers irregular blocks. nil: a Block remembers that only for itself.
	Irregular Irregulars
	// Sets keeps series sets. nil: none are kept.
	Sets *SeriesSets
	// Buffers keeps buffers of streams for later ones. nil: each stream allocates its own.
	Buffers *Buffers
	// Corruptions counts bytes that did not verify. The zero value counts nothing.
	Corruptions telemetry.Corruptions
	// Expansions bounds the memory for finding postings. nil: there is no limit.
	Expansions *postings.Account
	// Logger gets a line at level debug for each plan of postings. nil: none.
	Logger *slog.Logger
	// Panics logs and counts panics of work that no request waits for. nil: they are ignored.
	Panics *panics.Guard
}

// Block reads one block of the bucket. It is safe for concurrent use. It holds no bytes and no
// file: plans and windows borrow headers and pages from Deps, so that a block may leave the catalog
// at any moment.
type Block struct {
	meta *catalog.Block
	deps *Deps

	finder    *postings.Finder
	irregular atomic.Bool // see irregular.go

	last lastFile

	mu sync.Mutex // guards the fields below; never held while reading
	// emptyLazy has the hashes of matcher sets whose lazy plan found no series. They are planned
	// eagerly, because finding nothing lazily may read many series.
	emptyLazy map[uint64]struct{}
	// builds has the series sets under construction that requests may join, by SetKey.Identity.
	builds map[string]*setBuild
}

// maxEmptyLazy bounds Block.emptyLazy.
const maxEmptyLazy = 256

// New returns a reader of the block that meta describes.
func New(meta *catalog.Block, deps *Deps) *Block {
	b := &Block{meta: meta, deps: deps}
	b.last.number = -1
	b.finder = postings.NewFinder(postings.FinderOptions{
		ID: meta.ID, Content: meta.Content, Header: b.acquire,
		Pages: deps.Index, PageBytes: b.indexPage(),
		Costs: deps.Costs, Cache: deps.Postings, Account: deps.Expansions,
		Everyones: everyones, Logger: deps.Logger, Corruptions: deps.Corruptions,
	})
	if deps.Irregular != nil {
		_, known := deps.Irregular.What(meta.ID, meta.Content)
		b.irregular.Store(known)
	}
	return b
}

// Meta returns the block's description.
func (b *Block) Meta() *catalog.Block { return b.meta }

// Source returns the source of this block's header.
func (b *Block) Source() indexheader.Source { return Source(b.meta) }

// Source returns the source of the header of the block that meta describes.
func Source(meta *catalog.Block) indexheader.Source {
	return indexheader.Source{
		ID: meta.ID, Number: meta.Number, Content: meta.Content,
		IndexObject: meta.ID.String() + "/index", IndexSize: meta.IndexSize,
		Unsized: !meta.Sized(), MaxTime: meta.MaxTime,
	}
}

// goneTimeout bounds how long a request waits to learn whether a block is gone. After that it
// fails.
const goneTimeout = 10 * time.Second

// Gone reports whether the block was deleted from the bucket, as opposed to damaged. Deleting a
// block begins with its meta.json. A listing must confirm that it does not exist, because the
// request will then be answered without the block.
func (b *Block) Gone(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, goneTimeout)
	defer cancel()
	meta := b.meta.ID.String() + "/meta.json"
	there, err := b.deps.Lister.Exists(ctx, meta)
	if err != nil || there {
		return false, fault(err)
	}
	err = b.deps.Lister.Iter(ctx, b.meta.ID.String()+"/", func(name string) error {
		there = there || name == meta
		return nil
	})
	return !there && err == nil, fault(err)
}

// Header opens the block's header. The caller must call the function when it no longer uses it.
func (b *Block) Header(ctx context.Context) (*indexheader.Header, func(), error) {
	h, release, err := b.acquire(ctx)
	if err != nil {
		return nil, nil, b.wrap(err)
	}
	return h, release, nil
}

// acquire is Header, with errors that do not name the block.
func (b *Block) acquire(ctx context.Context) (*indexheader.Header, func(), error) {
	h, release, err := b.deps.Headers.Acquire(ctx, b.Source())
	if err != nil {
		return nil, nil, fault(fmt.Errorf("index header: %w", err))
	}
	return h, release, nil
}

func (b *Block) entryGuess() int64 {
	if n := b.meta.SeriesMaxSize; n > 0 {
		// The recorded size does not include the length prefix and the checksum.
		return min(n+maxLengthPrefix+4, maxEntryGuess)
	}
	return defaultEntryBytes
}

// Plan has the postings of a block that match, and the matchers that must still be checked against
// each series. It is used by one goroutine.
type Plan struct {
	block   *Block
	header  *indexheader.Header
	release func()
	pages   IndexPages
	index   pagecache.Object
	refs    []uint32
	pending []*labels.Matcher
	key     uint64
	stats   postings.Stats

	headerWait    time.Duration
	postingsBytes int64 // index pages that hold the posting lists

	// external labels to add, and label names of the block to drop
	external labels.Labels
	dropped  []string
	// irregular: labels are normalised. sorted: series are sorted in memory. unordered: the order
	// of series does not matter.
	irregular, sorted, unordered bool

	// At most one of set and build is there. A kept set answers without header and postings. A set
	// under construction answers from its log, and owns the header.
	set    *seriesSet
	build  *setBuild
	closed bool // Close has left build
}

// PlanOptions tune Plan.
type PlanOptions struct {
	// External has the external labels to add to every series, sorted, without removed ones.
	External labels.Labels
	// Dropped has the label names to drop from series: removed replica labels. External labels
	// replace labels of the same name anyway.
	Dropped []string
	// Sets says whether a series set may answer the request, and whether one may be built.
	Sets SetUse
	// Known says that the same series were requested before, Repeated that this request was planned
	// before. Both bear on whether a series set is built and kept.
	Known, Repeated bool
	// MinTime and MaxTime are the time range of the request in milliseconds, both included. They
	// bear on whether building a series set pays.
	MinTime, MaxTime int64

	// Unordered says that the caller needs label names and values only: the stream does not restore
	// the order of the final labels.
	Unordered bool

	Account *pagecache.Account
	// OnSeries is called with the number of postings, unless matchers are pending. Its error ends
	// the plan.
	OnSeries func(n int) error
	// Reserve reserves n bytes for the plan's postings, before it holds them. An error ends the
	// plan. nil: there is no limit.
	Reserve func(n int64) error
}

// Plan finds the series that match all matchers. There must be at least one. The caller must close
// the plan.
func (b *Block) Plan(
	ctx context.Context, matchers []*labels.Matcher, opts PlanOptions,
) (*Plan, error) {
	if b.deps.Sets == nil || opts.Sets == UseNoSets {
		return b.planByPostings(ctx, postings.NewMatcherSet(matchers), &opts)
	}
	return b.planSet(ctx, postings.NewMatcherSet(matchers), &opts)
}

// planByPostings is Plan without series sets.
func (b *Block) planByPostings(
	ctx context.Context, matchers *postings.MatcherSet, opts *PlanOptions,
) (*Plan, error) {
	start := time.Now()
	h, release, err := b.Header(ctx)
	if err != nil {
		return nil, err
	}
	p := &Plan{
		headerWait: time.Since(start),
		block:      b, header: h, release: release, pages: b.deps.Index,
		index:    b.deps.Index.Object(b.meta.Number, b.meta.ID, b.meta.Content, h.IndexSize()),
		key:      matchers.Hash(),
		external: opts.External, dropped: opts.Dropped,
		irregular: b.irregularBy(h),
	}
	p.unordered = opts.Unordered
	p.sorted = !p.unordered && (p.irregular || clashes(h.LabelNames(), p.external, p.dropped))
	got, err := b.finder.Find(ctx, postings.Query{
		Matchers: matchers, Mode: b.mode(p), Header: h, Index: p.index,
		SeriesBytes: b.meanEntry(h), Account: opts.Account, Reserve: opts.Reserve,
	})
	if err == nil && len(got.Pending) == 0 && opts.OnSeries != nil {
		err = opts.OnSeries(len(got.Refs))
	}
	if err != nil {
		release()
		return nil, b.wrap(err)
	}
	p.refs, p.pending, p.stats, p.postingsBytes = got.Refs, got.Pending, got.Stats, got.PageBytes
	return p, nil
}

// mode returns how the postings of plan p are found.
func (b *Block) mode(p *Plan) postings.Mode {
	switch {
	case p.irregular:
		// A label that occurs twice matches by its postings, but the normalised labels do not show
		// that.
		return postings.Complete
	case b.wasEmptyLazy(p.key):
		return postings.Eager
	}
	return postings.Lazy
}

// Close releases the plan's header, or its series set. It may be called more than once.
func (p *Plan) Close() {
	if p.build != nil && !p.closed {
		p.closed = true
		p.build.leave()
	}
	if p.release != nil {
		p.release()
		p.release = nil
	}
}

// Block returns the block that the plan reads.
func (p *Plan) Block() *Block { return p.block }

// Header returns the plan's header, which is open until the plan is closed; nil if a kept series
// set answers.
func (p *Plan) Header() *indexheader.Header { return p.header }

// Postings returns the number of postings, an upper bound of the series.
func (p *Plan) Postings() int {
	if p.set != nil {
		return p.set.postings
	}
	return len(p.refs)
}

// PostingsBytes returns the memory of the plan's postings.
func (p *Plan) PostingsBytes() int64 { return 4 * int64(len(p.refs)) }

// Kept reports whether a kept series set answers. Then nothing is read from the index.
func (p *Plan) Kept() bool { return p.set != nil }

// Lazy reports whether matchers are pending: the stream checks them against the series.
func (p *Plan) Lazy() bool { return len(p.pending) > 0 }

// InIndexOrder reports whether the stream returns series in the order of the index. The stream
// verifies that order as it decodes them.
func (p *Plan) InIndexOrder() bool { return p.set == nil && !p.sorted }

// HeaderWait returns how long the plan waited for its header.
func (p *Plan) HeaderWait() time.Duration { return p.headerWait }

// Stats returns what finding the postings needed.
func (p *Plan) Stats() postings.Stats { return p.stats }

// EntryBytes estimates the bytes of the index entries of the plan's series.
func (p *Plan) EntryBytes() int64 { return int64(len(p.refs)) * p.block.meanEntry(p.header) }

const (
	// streamOverhead is the memory of a stream with the smallest plan: its tables, and the first
	// page of each of its parts.
	streamOverhead = 8 << 10
	// seriesOverhead is the part of it that stays once all series are in one segment.
	seriesOverhead = 3 << 10
)

// StreamBytes estimates the memory of the plan's postings and of a stream with these options: two
// runs of index pages, the current segment with its decoding buffers (about seven times its
// entries), and the symbol table. A stream that makes no chunk references, or that only collects
// strings, needs less. Where labels or entries are long, the stream reserves more
// (StreamOptions.Reserver). A series set belongs to the cache: its stream only has a list of the
// series of a segment that are in range.
func (p *Plan) StreamBytes(o StreamOptions) int64 {
	all, _ := p.streamBytes(&o)
	return all
}

// PassingBytes is the part of StreamBytes that the stream releases before it returns its first
// segment: most of it, if the plan has few series. Only streams that are being started hold these
// bytes.
func (p *Plan) PassingBytes(o StreamOptions) int64 {
	_, passing := p.streamBytes(&o)
	return passing
}

func (p *Plan) streamBytes(o *StreamOptions) (all, passing int64) {
	if p.set != nil {
		all = streamOverhead + 16*min(int64(p.set.postings), segmentSeries) + p.set.copied
		return all, streamOverhead - seriesOverhead
	}
	entries := p.EntryBytes()
	pages, runs := p.runPages(o.RunBytes)
	decoding := p.decodingBytes(o)
	all = p.PostingsBytes() + streamOverhead + pages + decoding + p.sortBytes(o.RunBytes)
	if !p.sorted && runs == 1 && len(p.refs) <= segmentSeries && entries <= segmentEntryBytes {
		// The segment needs about half of its decoding buffers.
		passing = streamOverhead - seriesOverhead + pages + decoding/2
	}
	return all, passing
}

// sortRuns limits the bytes that a stream reserves for sorting at the start, in multiples of
// RunBytes.
const sortRuns = 8

// sortBytes returns the bytes that a stream reserves for sorting at the start: enough for its
// answer, or for one pass over a part of it.
func (p *Plan) sortBytes(runBytes int64) int64 {
	if !p.sorted {
		return 0
	}
	// A sorter fills three quarters of its bytes: see seriesSorter.
	return min(p.setBytes()*3/2+minSortBytes, max(sortRuns*runBytes, minSortBytes))
}

// decodingBytes estimates the memory of a segment and its decoding buffers, where labels have usual
// lengths. The stream reserves more where they are longer.
func (p *Plan) decodingBytes(o *StreamOptions) int64 {
	mean := p.block.meanEntry(p.header)
	entries, kept := p.EntryBytes(), mean
	// A set under construction has the chunk references, whatever the requests need that read it.
	if o.SkipChunks && p.build == nil {
		// A quarter of an entry at least, because chunks may have shorter references.
		kept = max(p.block.labelRefsBytes(p.header), mean/4)
	}
	segment := min(entries, segmentEntryBytes, o.RunBytes)
	bytes := 7*segment*kept/mean + min(entries*kept/mean, o.RunBytes)
	if n := newNarrowing(o.Collect, p); n.on && p.build == nil {
		bytes = min(bytes, p.narrowedBytes(&n, segment/mean+1, o.RunBytes))
	}
	return bytes
}

// runPages returns the bytes of the index pages of a stream's first two runs at their full size,
// and the number of runs: 1, or 2 for more.
func (p *Plan) runPages(runBytes int64) (bytes int64, runs int) {
	version, toc := p.header.IndexVersion(), p.header.TOC()
	end := toc.SectionEnd(toc.Series, p.index.Size)
	m := runMeter{page: p.block.indexPage(), entry: p.block.entryGuess(), end: end}
	for _, ref := range p.refs {
		if m.bytes >= 2*runBytes || m.pages*m.page >= 2*maxRunPages*runBytes {
			return m.pages * m.page, 2
		}
		m.add(tsdbfmt.SeriesOffset(version, ref))
	}
	if !p.oneRun(runBytes) && (m.bytes >= min(firstRunBytes, runBytes) ||
		m.pages*m.page >= min(maxRunPages*runBytes, firstRunPages)) {
		return m.pages * m.page, 2
	}
	return m.pages * m.page, 1
}

// oneRun reports whether the plan is small: a stream then reads the entries of all series in one
// run, if their pages are no more than those of two runs, which StreamBytes has.
func (p *Plan) oneRun(runBytes int64) bool { return p.EntryBytes() <= runBytes }

// ChunkFileBytes returns the size of the block's chunk files as far as it is known.
func (b *Block) ChunkFileBytes() (size int64) {
	for _, f := range b.meta.ChunkFiles {
		size += f.Size
	}
	return size
}

// ChunksPerSeries estimates how many chunks of a series overlap the closed range [minT, maxT], and
// their bytes.
func (b *Block) ChunksPerSeries(minT, maxT int64) (n, bytes int64) {
	const guessedChunks, guessedBytes = 2, 512
	m := b.meta
	perSeries, each := float64(guessedChunks), float64(guessedBytes)
	if m.NumChunks > 0 && m.NumSeries > 0 {
		perSeries = float64(m.NumChunks) / float64(m.NumSeries)
		if size := b.ChunkFileBytes(); size > 0 {
			each = float64(size) / float64(m.NumChunks)
		}
	}
	// In floating point the extremes of time do not overflow. Chunks at both ends are in the range
	// in part.
	overlap := min(float64(maxT), float64(m.MaxTime)) - max(float64(minT), float64(m.MinTime))
	// The length of a block of one instant is 0.
	length := max(float64(m.MaxTime)-float64(m.MinTime), 1)
	chunks := min(perSeries, perSeries*max(overlap, 0)/length+1)
	chunks = min(chunks, 1<<20) // meta.json may say anything
	return int64(math.Ceil(chunks)), int64(math.Ceil(min(chunks*each, 1<<30)))
}

// indexPage returns the size of an index page.
func (b *Block) indexPage() int64 { return pageSizeOf(b.deps.Index, defaultIndexPage) }

// NoteNoSeries tells the block that the stream of a lazy plan returned no series. It does nothing
// if a kept series set answered, because no series was read.
func (p *Plan) NoteNoSeries() {
	if !p.Lazy() {
		return
	}
	b := p.block
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.emptyLazy == nil || len(b.emptyLazy) >= maxEmptyLazy {
		b.emptyLazy = make(map[uint64]struct{})
	}
	b.emptyLazy[p.key] = struct{}{}
}

// wasEmptyLazy reports whether a lazy plan for these matchers found no series.
func (b *Block) wasEmptyLazy(key uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.emptyLazy[key]
	return ok
}

// meanEntry returns the mean size of a series entry.
func (b *Block) meanEntry(h *indexheader.Header) int64 {
	toc := h.TOC()
	if b.meta.NumSeries > 0 && toc.Series > 0 {
		bytes := toc.SectionEnd(toc.Series, h.IndexSize()) - toc.Series
		if mean := bytes / int64(b.meta.NumSeries); mean > 0 {
			return mean
		}
	}
	return defaultEntryBytes
}

// labelRefsBytes estimates how many bytes of a series entry are label references. Chunk references
// are the rest.
func (b *Block) labelRefsBytes(h *indexheader.Header) int64 {
	const metaBytes = 9 // bytes of a chunk in an entry
	n, _ := b.ChunksPerSeries(b.meta.MinTime, b.meta.MaxTime)
	return max(b.meanEntry(h)-metaBytes*n, tsdbfmt.SeriesAlign)
}
