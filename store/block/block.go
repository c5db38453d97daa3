package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/pagecache"
	"larder/store/catalog"
	"larder/store/indexheader"
)

// Headers hands out open index headers: *indexheader.Manager.
type Headers interface {
	Acquire(ctx context.Context, src indexheader.Source) (h *indexheader.Header, release func(), err error)
}

// Pages reads an object through pages: indexcache.Cache and chunkcache.Cache.
type Pages interface {
	Fetch(ctx context.Context, obj pagecache.Object, spans []pagecache.Span, acct *pagecache.Account) (*pagecache.Pages, error)
	Refetch(ctx context.Context, obj pagecache.Object, span pagecache.Span, acct *pagecache.Account) (*pagecache.Pages, error)
}

// IndexPages are the pages of index objects.
type IndexPages interface {
	Pages
	Object(number uint32, id ulid.ULID, size int64) pagecache.Object
}

// ChunkPages are the pages of chunk files.
type ChunkPages interface {
	Pages
	Object(number uint32, id ulid.ULID, file int, name string, size int64) pagecache.Object
}

// Deps are what the blocks of a process share.
type Deps struct {
	Headers Headers
	Index   IndexPages
	Chunks  ChunkPages
	Lister  Lister
	Logger  *slog.Logger
}

// Block reads one block of the bucket. It holds no bytes and no file: headers and pages come from what Deps share, for as long as a
// plan or a window uses them, so that a block may leave the catalog at any moment.
type Block struct {
	meta *catalog.Block
	deps *Deps

	mu    sync.Mutex // guards what follows; never held while reading
	files []chunkFile
	// zero holds the hashes of matcher sets whose lazy plan came to nothing: those are planned eagerly, as the series that were read to
	// find that out may be many.
	zero map[uint64]struct{}
}

// maxZero bounds Block.zero.
const maxZero = 256

// New returns a reader of the block that meta describes.
func New(meta *catalog.Block, deps *Deps) *Block { return &Block{meta: meta, deps: deps} }

// Meta returns the block's description.
func (b *Block) Meta() *catalog.Block { return b.meta }

// Source returns what the header of this block is built from.
func (b *Block) Source() indexheader.Source { return Source(b.meta) }

// Source returns what the header of the block that meta describes is built from.
func Source(meta *catalog.Block) indexheader.Source {
	return indexheader.Source{ID: meta.ID, IndexObject: meta.ID.String() + "/index", IndexSize: meta.IndexSize, MaxTime: meta.MaxTime}
}

// Gone reports whether the block has left the bucket, as opposed to being damaged: whoever deletes a block deletes its meta.json first.
func (b *Block) Gone(ctx context.Context) (bool, error) {
	there, err := b.deps.Lister.Exists(ctx, b.meta.ID.String()+"/meta.json")
	return !there && err == nil, err
}

// Header returns the block's open header and a function that must be called when it is no longer used.
func (b *Block) Header(ctx context.Context) (*indexheader.Header, func(), error) {
	h, release, err := b.deps.Headers.Acquire(ctx, b.Source())
	if err != nil {
		return nil, nil, b.wrap(fmt.Errorf("index header: %w", err))
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

// Add adds o to s.
func (s *PostingsStats) Add(o PostingsStats) {
	s.Groups += o.Groups
	s.Pending += o.Pending
	s.Values += o.Values
	s.MaxSeries += o.MaxSeries
	s.Lists += o.Lists
	s.ListBytes += o.ListBytes
	s.Repaired += o.Repaired
}

// Plan is the outcome of a block's matchers: its postings, and the matchers that are still to be checked against each series.
type Plan struct {
	block   *Block
	header  *indexheader.Header
	release func()
	pages   IndexPages
	index   pagecache.Object
	refs    []uint32
	pending []*labels.Matcher
	key     uint64
	stats   PostingsStats
}

// PlanOptions tune Plan.
type PlanOptions struct {
	Account *pagecache.Account
	// OnSeries is called with the number of postings once they are known, unless matchers are pending; an error ends the plan.
	OnSeries func(n int) error
}

// Plan finds the series that match all of matchers, of which there must be at least one. Close must be called on the plan.
func (b *Block) Plan(ctx context.Context, matchers []*labels.Matcher, opts PlanOptions) (*Plan, error) {
	h, release, err := b.Header(ctx)
	if err != nil {
		return nil, err
	}
	p := &Plan{
		block: b, header: h, release: release, pages: b.deps.Index,
		index: b.deps.Index.Object(b.meta.Number, b.meta.ID, h.IndexSize()),
		key:   matchersKey(matchers),
	}
	got, err := expandPostings(ctx, h, b.deps.Index, postingsRequest{
		matchers:    matchers,
		object:      p.index,
		account:     opts.Account,
		seriesBytes: b.meanEntry(h),
		eager:       b.wasZero(p.key),
	})
	if err == nil && len(got.pending) == 0 && opts.OnSeries != nil {
		err = opts.OnSeries(len(got.refs))
	}
	if err != nil {
		release()
		return nil, b.wrap(err)
	}
	p.refs, p.pending, p.stats = got.refs, got.pending, got.stats
	return p, nil
}

// Close releases the plan's header. It may be called more than once.
func (p *Plan) Close() {
	if p.release != nil {
		p.release()
		p.release = nil
	}
}

// Block returns the block that the plan reads.
func (p *Plan) Block() *Block { return p.block }

// Header returns the plan's header, open until Close.
func (p *Plan) Header() *indexheader.Header { return p.header }

// Postings returns the number of postings, an upper bound of the series.
func (p *Plan) Postings() int { return len(p.refs) }

// Lazy reports whether matchers are still to be checked against the series.
func (p *Plan) Lazy() bool { return len(p.pending) > 0 }

// Stats returns what planning has read.
func (p *Plan) Stats() PostingsStats { return p.stats }

// EntryBytes estimates the bytes of index that the plan's series take.
func (p *Plan) EntryBytes() int64 { return int64(len(p.refs)) * p.block.meanEntry(p.header) }

// CameToNothing tells the block that the stream of a lazy plan returned no series.
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
		if mean := (seriesSectionEnd(toc, h.IndexSize()) - toc.Series) / int64(b.meta.NumSeries); mean > 0 {
			return mean
		}
	}
	return defaultEntryBytes
}

// matchersKey hashes a set of matchers, whatever their order.
func matchersKey(ms []*labels.Matcher) uint64 {
	texts := make([]string, len(ms))
	for i, m := range ms {
		texts[i] = strconv.Itoa(int(m.Type)) + "\xff" + m.Name + "\xff" + m.Value
	}
	slices.Sort(texts)
	return xxhash.Sum64String(strings.Join(texts, "\xfe"))
}

var errNoChunkFile = errors.New("no such chunk file")

// chunkFile is a file of the block's chunks/ folder.
type chunkFile struct {
	name string // full object name
	size int64  // 0 = not known yet
}

// chunkObject returns the object of chunk file number n, counted from 0 as chunk references count, asking the bucket for its name and
// size where meta.json does not say.
func (b *Block) chunkObject(ctx context.Context, n int) (pagecache.Object, error) {
	b.mu.Lock()
	files := b.files
	b.mu.Unlock()
	dir := b.meta.ID.String() + "/chunks/"
	if files == nil {
		for _, f := range b.meta.ChunkFiles {
			files = append(files, chunkFile{name: dir + f.Name, size: f.Size})
		}
		if files == nil {
			err := b.deps.Lister.Iter(ctx, dir, func(name string) error {
				files = append(files, chunkFile{name: name})
				return nil
			})
			if err != nil {
				return pagecache.Object{}, fmt.Errorf("list %s: %w", dir, err)
			}
			slices.SortFunc(files, func(a, b chunkFile) int { return strings.Compare(a.name, b.name) })
		}
		b.setFiles(files)
	}
	if n >= len(files) {
		return pagecache.Object{}, fmt.Errorf("%s: %w: number %d of %d", dir, errNoChunkFile, n+1, len(files))
	}
	f := files[n]
	if f.size == 0 {
		size, err := b.deps.Lister.Size(ctx, f.name)
		if err != nil {
			return pagecache.Object{}, fmt.Errorf("size of %s: %w", f.name, err)
		}
		f.size = size
		files = slices.Clone(files)
		files[n] = f
		b.setFiles(files)
	}
	return b.deps.Chunks.Object(b.meta.Number, b.meta.ID, n+1, f.name, f.size), nil
}

// setFiles publishes files. Two requests that find out different sizes at once may overwrite one another: then one size is asked
// for again.
func (b *Block) setFiles(files []chunkFile) {
	b.mu.Lock()
	b.files = files
	b.mu.Unlock()
}
