package block

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/pagecache"
	"larder/internal/panics"
	"larder/internal/telemetry"
	"larder/internal/tsdbfmt"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/postings"
)

// Headers hands out open index headers: *indexheader.Manager.
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
}

// IndexPages are the pages of index objects.
type IndexPages interface {
	Pages
	Object(number uint32, id ulid.ULID, content uint64, size int64) pagecache.Object
}

// ChunkPages are the pages of chunk files.
type ChunkPages interface {
	Pages
	Object(
		number uint32, id ulid.ULID, content uint64, file int, name string, size int64,
	) pagecache.Object
}

// Deps are what the blocks of a process share.
type Deps struct {
	Headers Headers
	Index   IndexPages
	Chunks  ChunkPages
	Lister  Lister
	// Sizes is asked for the sizes of a block's files, where they are not known or do not hold;
	// nil: those of meta.json are believed.
	Sizes Measurer
	// Postings keeps expanded postings. Nil: none are kept, and none shared.
	Postings postings.Cache
	// Irregular remembers irregular blocks; nil: each Block remembers for itself alone.
	Irregular Irregulars
	// Sets keeps series sets; nil: none.
	Sets *SeriesSets
	// Corruptions counts what did not verify; its zero value nothing.
	Corruptions telemetry.Corruptions
	// Expansions bounds the memory for finding postings. nil: there is no limit.
	Expansions *postings.Account
	// Panics notes those of work that no request waits for. Nil: nobody does.
	Panics *panics.Guard
}

// Block reads one block of the bucket. It holds no bytes and no file: headers and pages come from
// what Deps share, for as long as a plan or a window uses them, so that a block may leave the
// catalog at any moment.
type Block struct {
	meta *catalog.Block
	deps *Deps

	finder    *postings.Finder
	irregular atomic.Bool // see irregular.go

	last lastFile

	mu sync.Mutex // guards what follows; never held while reading
	// zero holds the hashes of matcher sets whose lazy plan came to nothing: those are planned
	// eagerly, as the series that were read to find that out may be many.
	zero map[uint64]struct{}
	// builds are the series sets under construction that may be joined, by the identity of their
	// keys.
	builds map[string]*setBuild
}

// maxZero bounds Block.zero.
const maxZero = 256

// New returns a reader of the block that meta describes.
func New(meta *catalog.Block, deps *Deps) *Block {
	b := &Block{meta: meta, deps: deps}
	b.last.number = -1
	b.finder = postings.NewFinder(postings.FinderOptions{
		ID: meta.ID, Content: meta.Content, Header: b.acquire,
		Pages: deps.Index, PageBytes: b.indexPage(),
		Cache: deps.Postings, Account: deps.Expansions,
		Everyones: everyones, Corruptions: deps.Corruptions,
	})
	if deps.Irregular != nil {
		_, known := deps.Irregular.What(meta.ID, meta.Content)
		b.irregular.Store(known)
	}
	return b
}

// Meta returns the block's description.
func (b *Block) Meta() *catalog.Block { return b.meta }

// Source returns what the header of this block is built from.
func (b *Block) Source() indexheader.Source { return Source(b.meta) }

// Source returns what the header of the block that meta describes is built from.
func Source(meta *catalog.Block) indexheader.Source {
	return indexheader.Source{
		ID: meta.ID, Number: meta.Number, Content: meta.Content,
		IndexObject: meta.ID.String() + "/index", IndexSize: meta.IndexSize, Unsized: !meta.Sized(), MaxTime: meta.MaxTime,
	}
}

// goneTimeout bounds how long a request waits to learn what became of a block. One that does not
// learn it fails.
const goneTimeout = 10 * time.Second

// Gone reports whether the block has left the bucket, as opposed to being damaged: whoever deletes
// a block deletes its meta.json first. A bucket that says so of an object must also leave it out of
// a listing: whoever believes it answers without the block.
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

// Header returns the block's open header and a function that must be called when it is no longer
// used.
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
		// The recorded size leaves out the length prefix and the checksum.
		return min(n+maxLengthPrefix+4, maxEntryGuess)
	}
	return defaultEntryBytes
}

// Plan is the outcome of a block's matchers: its postings, and the matchers that are still to be
// checked against each series.
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
	postingsBytes int64 // of the index pages that finding the postings took

	// External labels to add, and names that are not taken from the block.
	external labels.Labels
	dropped  []string
	// irregular says that the labels of series are normalised, sorted that the series are collected
	// and sorted, unordered that their order does not matter.
	irregular, sorted, unordered bool

	// set answers instead of all of the above: there is no header and there are no postings. Or
	// build does, which owns the header then.
	set   *seriesSet
	build *setBuild
	left  bool // build, by Close
}

// PlanOptions tune Plan.
type PlanOptions struct {
	// External are the external labels to add to every series, those to be removed already taken
	// away, sorted.
	External labels.Labels
	// Dropped are the label names that the final labels do not take from the block: removed replica
	// labels. (Names of External are overridden in any case.)
	Dropped []string
	// Sets says whether a series set may answer, and whether one may be built.
	Sets SetUse
	// Known says that the same series were requested before, Repeated that this request was planned
	// before. Both bear on whether a series set is built and kept.
	Known, Repeated bool
	// MinTime and MaxTime are the request's time range, both included. They tell whether building a
	// series set pays.
	MinTime, MaxTime int64

	// Unordered spares the stream restoring the order of the final labels, for callers that only
	// look at label names and values.
	Unordered bool

	Account *pagecache.Account
	// OnSeries is called with the number of postings once they are known, unless matchers are
	// pending; an error ends the plan.
	OnSeries func(n int) error
	// Reserve reserves n bytes for the plan's postings, before it holds them. An error ends the
	// plan. nil: there is no limit.
	Reserve func(n int64) error
}

// Plan finds the series that match all of matchers, of which there must be at least one. Close must
// be called on the plan.
func (b *Block) Plan(
	ctx context.Context, matchers []*labels.Matcher, opts PlanOptions,
) (*Plan, error) {
	if b.deps.Sets == nil || opts.Sets == SetsUnused {
		return b.planPostings(ctx, postings.NewMatcherSet(matchers), &opts)
	}
	return b.planSet(ctx, postings.NewMatcherSet(matchers), &opts)
}

// planPostings is Plan without series sets.
func (b *Block) planPostings(
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
	case b.wasZero(p.key):
		return postings.Eager
	}
	return postings.Lazy
}

// Close releases the plan's header, or its series set. It may be called more than once.
func (p *Plan) Close() {
	if p.build != nil && !p.left {
		p.left = true
		p.build.leave()
	}
	if p.release != nil {
		p.release()
		p.release = nil
	}
}

// Block returns the block that the plan reads.
func (p *Plan) Block() *Block { return p.block }

// Header returns the header that the plan was made with, until the plan is closed; nil if a kept
// series set answers.
func (p *Plan) Header() *indexheader.Header { return p.header }

// Postings returns the number of postings, an upper bound of the series.
func (p *Plan) Postings() int {
	if p.set != nil {
		return p.set.postings
	}
	return len(p.refs)
}

// PostingsBytes returns the heap that the plan's postings take.
func (p *Plan) PostingsBytes() int64 { return 4 * int64(len(p.refs)) }

// Kept reports whether a kept series set answers: then nothing was read, and no series will be.
func (p *Plan) Kept() bool { return p.set != nil }

// Lazy reports whether matchers are still to be checked against the series.
func (p *Plan) Lazy() bool { return len(p.pending) > 0 }

// InIndexOrder reports whether the series come in the order in which the index has them, unverified
// up to the last one.
func (p *Plan) InIndexOrder() bool { return p.set == nil && !p.sorted }

// HeaderWait returns how long the plan waited for its header.
func (p *Plan) HeaderWait() time.Duration { return p.headerWait }

// Stats returns what planning has read.
func (p *Plan) Stats() postings.Stats { return p.stats }

// EntryBytes estimates the bytes of index that the plan's series take.
func (p *Plan) EntryBytes() int64 { return int64(len(p.refs)) * p.block.meanEntry(p.header) }

const (
	// streamOverhead is what a stream holds however small its plan is: its tables and the first
	// page of each of its parts.
	streamOverhead = 8 << 10
	// seriesOverhead is what is left of that when all of its series are in the segment at hand.
	seriesOverhead = 3 << 10
)

// StreamBytes estimates the heap that the plan's postings and a stream of them with the given
// RunBytes hold: two runs of index pages, the segment at hand with what it is decoded from (about
// seven times its entries) and the symbol table. Where labels or entries are long the stream asks
// for more (StreamOptions.Reserver). What a series set holds is the cache's: its stream has a list of
// the series of a segment that are in range.
func (p *Plan) StreamBytes(runBytes int64) int64 {
	all, _ := p.streamBytes(runBytes)
	return all
}

// PassingBytes is the part of StreamBytes that is given back before the first segment is returned:
// of a plan of few series, most of it. Of the streams of many blocks only those that are being
// started hold theirs.
func (p *Plan) PassingBytes(runBytes int64) int64 {
	_, passing := p.streamBytes(runBytes)
	return passing
}

func (p *Plan) streamBytes(runBytes int64) (all, passing int64) {
	if p.set != nil {
		return streamOverhead + 16*min(
			int64(p.set.postings), segmentSeries,
		) + p.set.copied, streamOverhead - seriesOverhead
	}
	entries := p.EntryBytes()
	pages, runs := p.runPages(runBytes)
	decoding := p.decodingBytes(runBytes)
	all = p.PostingsBytes() + streamOverhead + pages + decoding + p.sortBytes(runBytes)
	if !p.sorted && runs == 1 && len(p.refs) <= segmentSeries && entries <= segmentEntryBytes {
		// The segment takes about half of what it is decoded from and through.
		passing = streamOverhead - seriesOverhead + pages + decoding/2
	}
	return all, passing
}

// sortRuns is how many times its RunBytes a stream has for sorting, whatever its answer takes.
const sortRuns = 8

// sortBytes is what a stream has for sorting from the start: what its answer takes, or as much of
// it as is sorted in one pass at least.
func (p *Plan) sortBytes(runBytes int64) int64 {
	if !p.sorted {
		return 0
	}
	// What is kept is at times three quarters of the bytes: see seriesSorter.
	return min(p.setBytes()*3/2+minSortBytes, max(sortRuns*runBytes, minSortBytes))
}

// decodingBytes estimates what a stream takes for its segment and what that is decoded from and
// through, where labels are of usual length: for what it takes beyond the stream asks.
func (p *Plan) decodingBytes(runBytes int64) int64 {
	entries := p.EntryBytes()
	return 7*min(entries, segmentEntryBytes, runBytes) + min(entries, runBytes)
}

// runPages returns the bytes of the index pages of a stream's first two runs at their full size,
// and 1 if there is only one run.
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
	if m.bytes >= min(firstRunBytes, runBytes) ||
		m.pages*m.page >= min(maxRunPages*runBytes, firstRunPages) {
		return m.pages * m.page, 2
	}
	return m.pages * m.page, 1
}

// ChunksPerSeries estimates how many chunks of a series overlap the closed range [minT, maxT], and
// their bytes.
func (b *Block) ChunksPerSeries(minT, maxT int64) (n, bytes int64) {
	const guessedChunks, guessedBytes = 2, 512
	m := b.meta
	perSeries, each := float64(guessedChunks), float64(guessedBytes)
	if m.NumChunks > 0 && m.NumSeries > 0 {
		perSeries = float64(m.NumChunks) / float64(m.NumSeries)
		size := int64(0)
		for _, f := range m.ChunkFiles {
			size += f.Size
		}
		if size > 0 {
			each = float64(size) / float64(m.NumChunks)
		}
	}
	// In floating point the extremes of time do not overflow. The chunks at both ends lie in the
	// range in part.
	overlap := min(float64(maxT), float64(m.MaxTime)) - max(float64(minT), float64(m.MinTime))
	// A block of one instant has no length.
	chunks := min(
		perSeries, perSeries*max(overlap, 0)/max(float64(m.MaxTime)-float64(m.MinTime), 1)+1,
	)
	chunks = min(chunks, 1<<20) // meta.json may say anything
	return int64(math.Ceil(chunks)), int64(math.Ceil(min(chunks*each, 1<<30)))
}

// indexPage returns the size of an index page.
func (b *Block) indexPage() int64 { return pageSizeOf(b.deps.Index, defaultIndexPage) }

// CameToNothing tells the block that the stream of a lazy plan returned no series. Of a series set
// that says nothing: no series was read.
func (p *Plan) CameToNothing() {
	if !p.Lazy() {
		return
	}
	b := p.block
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.zero == nil || len(b.zero) >= maxZero {
		b.zero = make(map[uint64]struct{})
	}
	b.zero[p.key] = struct{}{}
}

func (b *Block) wasZero(key uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.zero[key]
	return ok
}

// meanEntry returns the mean size of a series entry.
func (b *Block) meanEntry(h *indexheader.Header) int64 {
	toc := h.TOC()
	if b.meta.NumSeries > 0 && toc.Series > 0 {
		if mean := (toc.SectionEnd(toc.Series, h.IndexSize()) - toc.Series) / int64(b.meta.NumSeries); mean > 0 {
			return mean
		}
	}
	return defaultEntryBytes
}
