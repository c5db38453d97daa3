package postings

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"larder/indexcache"
	"larder/internal/bucket/cost"
	"larder/internal/bucket/slots"
	"larder/internal/bytecache"
	"larder/internal/flight"
	"larder/internal/pagecache"
	"larder/internal/panics"
	"larder/internal/telemetry"
	"larder/internal/tsdbfmt"
	"larder/store/indexheader"
)

// Cache keeps expanded postings: *indexcache.Postings.
type Cache interface {
	// Get looks in memory, Fetch in memcached.
	Get(key bytecache.Key) ([]byte, bool)
	Fetch(ctx context.Context, key bytecache.Key) ([]byte, bool)
	// Set keeps a value that begins with indexcache.AppendID.
	Set(key bytecache.Key, value []byte)
	Del(key bytecache.Key)
	// Joined counts a request that waited for the expansion of another one.
	Joined()
}

// Pages reads the index of a block in pages: *indexcache.Cache.
type Pages interface {
	Fetch(
		ctx context.Context, obj pagecache.Object, spans []pagecache.Span, acct *pagecache.Account,
	) (*pagecache.Pages, error)
	Refetch(
		ctx context.Context, obj pagecache.Object, span pagecache.Span, acct *pagecache.Account,
	) (*pagecache.Pages, error)
}

// FinderOptions say which block a Finder reads, and through what.
type FinderOptions struct {
	// ID and Content name the block and the version of its contents.
	ID      ulid.ULID
	Content uint64
	// Header opens the block's index header; release must be called when it is no longer used. The
	// Finder calls it for work that may outlast the request that began it.
	Header func(ctx context.Context) (h *indexheader.Header, release func(), err error)
	// Pages reads the block's index in pages of PageBytes.
	Pages     Pages
	PageBytes int64
	// Costs says what reads of the bucket cost. nil: the defaults of cost.Model.
	Costs *cost.Meter
	// Cache keeps postings. nil: none are kept, and requests share no work.
	Cache Cache
	// Account bounds the memory of running expansions. nil: there is no limit.
	Account *Account
	// Everyones reports whether an error of the work that requests share is an error of them all.
	// nil: no error is.
	Everyones func(error) bool
	// Logger gets a line at level debug for each plan. Default nil: none.
	Logger *slog.Logger
	// Corruptions counts bytes that did not verify. The zero value counts nothing.
	Corruptions telemetry.Corruptions
}

// Finder finds the postings of one block. It keeps them in a cache, and requests for the same
// matchers share the work. It is safe for concurrent use.
type Finder struct {
	o       FinderOptions
	running flight.Group[bytecache.ID, kept]
}

// NewFinder returns a Finder.
func NewFinder(o FinderOptions) *Finder {
	f := &Finder{o: o}
	f.running.SharedError, f.running.Share = o.Everyones, slots.Share
	f.running.Waits = func(ctx, starter context.Context) (ended func()) {
		return telemetry.AwaitShared(ctx, "postings_shared", starter)
	}
	return f
}

// Mode says which posting lists are read although checking the remaining series would cost less. It
// is part of the key of kept postings.
type Mode byte

const (
	// Lazy reads no such list.
	Lazy Mode = iota
	// Eager reads those of all label names, except where a name's matchers select nearly
	// everything.
	Eager
	// Complete reads all: no matcher stays pending.
	Complete
)

// Query asks a Finder for the postings that match.
type Query struct {
	Matchers *MatcherSet
	Mode     Mode
	// Header is the block's header. It must stay open until Find returns.
	Header *indexheader.Header
	// Index is the block's index.
	Index pagecache.Object
	// SeriesBytes is the mean size of a series entry; 0: 512. See request.
	SeriesBytes int64
	// Account counts what is read, and may refuse it. nil: nothing does.
	Account *pagecache.Account
	// Reserve reserves n bytes for the postings, before the request holds them. nil: there is no
	// limit.
	Reserve func(n int64) error
}

// reserve reserves the bytes of n postings.
func (q *Query) reserve(n int64) error {
	if q.Reserve == nil || n == 0 {
		return nil
	}
	return q.Reserve(n * refBytes)
}

// Result is the answer to a Query.
type Result struct {
	// Refs are the postings as the index stores them, ascending and without duplicates. A series
	// matches if it matches Pending too, where a label that it lacks has the value "". Requests
	// share Refs: it must not be written to.
	Refs    []uint32
	Pending []*labels.Matcher
	Stats   Stats
	// PageBytes are the bytes of index pages that finding the postings takes without a cache.
	PageBytes int64
}

// Find returns the postings that match. It takes them from the cache, from another request that
// is looking for the same, or from the index.
func (f *Finder) Find(ctx context.Context, q Query) (Result, error) {
	acct, pc := q.Account, f.o.Cache
	// Without a cache the order is the canonical one, too: which lists are worth reading may depend
	// on it, and with that what a request is charged.
	canonical := q.Matchers.canonical
	if pc == nil {
		k, err := f.read(ctx, q.Header, &q, acct)
		if err == nil {
			err = q.reserve(int64(len(k.refs)))
		}
		return k.result(canonical), err
	}
	key := indexcache.PostingsKey(
		f.o.ID, f.o.Content, byte(q.Mode), f.o.PageBytes, q.Matchers.identity,
	)
	bounds := refRange(q.Header)
	if v, ok := pc.Get(key); ok {
		if err := q.reserve(keptCount(v)); err != nil {
			return Result{}, err
		}
		if k, ok := decodeKept(v, bounds, len(canonical)); ok {
			k.stats.Lookups, k.stats.Cached = 1, 1
			return k.charged(canonical, acct)
		}
		f.o.Corruptions.Mended(telemetry.CorruptCache, 1)
		pc.Del(key)
	}
	// The shared work has an account of its own: when it ends, the request that began it may have
	// failed because of another block, and its account may spend by another function.
	mine := acct
	if acct != nil {
		mine = &pagecache.Account{Spend: acct.Spend}
	}
	k, joined, err := f.running.Do(
		ctx, key.ID, func(ctx context.Context) (k kept, err error) {
			if acct != nil {
				defer mine.MoveTo(acct)
			}
			err = panics.Contained(func() error {
				k, err = f.fetch(ctx, &q, key, bounds, mine)
				return err
			})()
			return k, err
		},
	)
	if err != nil {
		return Result{}, err
	}
	// The postings are in memory already, and belong to all requests that wait for them. This
	// request uses them only if it can reserve their bytes.
	if err := q.reserve(int64(len(k.refs))); err != nil {
		return Result{}, err
	}
	k.stats.Lookups = 1
	if joined {
		pc.Joined()
		// The other request did the work, and counts it.
		k.stats.Cached, k.stats.Values, k.stats.Repaired = 0, 0, 0
		return k.charged(canonical, acct)
	}
	return k.result(canonical), nil
}

// fetch is the work that requests share: it looks in memcached, then reads the index and keeps what
// comes of it.
func (f *Finder) fetch(
	ctx context.Context, q *Query, key bytecache.Key, bounds refBounds, acct *pagecache.Account,
) (kept, error) {
	pc := f.o.Cache
	if v, ok := pc.Fetch(ctx, key); ok {
		if k, ok := decodeKept(v, bounds, len(q.Matchers.canonical)); ok {
			k.stats.Cached = 1
			return k, Charge(acct, k.touched)
		}
		f.o.Corruptions.Mended(telemetry.CorruptCache, 1)
		pc.Del(key)
	}
	// The request that began this may end first, and close its header.
	h, release, err := f.o.Header(ctx)
	if err != nil {
		return kept{}, err
	}
	defer release()
	k, err := f.read(ctx, h, q, acct)
	if err != nil {
		return k, err
	}
	pc.Set(key, appendKept(indexcache.AppendID(nil, key), &k))
	return k, nil
}

// mendingPages charges pages that are read again to an account of their own.
type mendingPages struct {
	Pages
	acct *pagecache.Account
}

func (m mendingPages) Refetch(
	ctx context.Context, obj pagecache.Object, span pagecache.Span, _ *pagecache.Account,
) (*pagecache.Pages, error) {
	return m.Pages.Refetch(ctx, obj, span, m.acct)
}

// read expands the matchers of q from the index.
func (f *Finder) read(
	ctx context.Context, h *indexheader.Header, q *Query, acct *pagecache.Account,
) (kept, error) {
	// A request plans many blocks at once on one account: what this block takes is counted apart.
	// Damaged pages that are read again do not count, because a request that gets the postings from
	// the cache does not pay for them.
	var touched atomic.Int64
	mine := &pagecache.Account{Spend: func(t, fetched int64) error {
		touched.Add(t)
		if acct == nil || acct.Spend == nil {
			return nil
		}
		return acct.Spend(t, fetched)
	}}
	memory := f.o.Account.reservation()
	defer memory.release()
	canonical := q.Matchers.canonical
	var chosen *choices
	if told(ctx, f.o.Logger) {
		chosen = &choices{}
	}
	req := f.request(q)
	req.memory, req.account, req.choices = memory, mine, chosen
	got, err := expand(ctx, h, mendingPages{f.o.Pages, acct}, req)
	if chosen != nil {
		chosen.tell(ctx, f.o.Logger, f.o.ID, &got.stats)
	}
	if acct != nil {
		mine.MoveTo(acct)
	}
	f.o.Corruptions.Mended(telemetry.CorruptPostings, got.stats.Repaired)
	if err != nil {
		if errors.Is(err, tsdbfmt.ErrChecksum) || errors.Is(err, tsdbfmt.ErrCorrupt) {
			f.o.Corruptions.Failed(telemetry.CorruptPostings)
		}
		return kept{stats: got.stats}, err
	}
	k := kept{refs: got.refs, stats: got.stats, touched: touched.Load()}
	for i, m := range canonical {
		if slices.Contains(got.pending, m) {
			k.pending = append(k.pending, i)
		}
	}
	return k, nil
}

// request returns what expand is asked for q.
func (f *Finder) request(q *Query) request {
	return request{
		pageBytes:   f.o.PageBytes,
		matchers:    q.Matchers.canonical,
		object:      q.Index,
		seriesBytes: q.SeriesBytes,
		costs:       f.o.Costs.Model(),
		eager:       q.Mode >= Eager,
		complete:    q.Mode >= Complete,
	}
}

// Reads calls each with the byte ranges of the index that Find reads together if nothing is kept:
// once, and once more for each batch of the lists of a name with very many values. It reads the
// header and no posting list. It returns what the plan decided.
func (f *Finder) Reads(
	ctx context.Context, q Query, each func(spans []pagecache.Span) error,
) (Stats, error) {
	req := f.request(&q)
	p, err := newPlan(ctx, q.Header, &req)
	if err != nil || p.empty {
		return p.stats, err
	}
	if spans := p.spans(); len(spans) > 0 {
		if err := each(spans); err != nil {
			return p.stats, err
		}
	}
	for _, l := range slices.Concat(p.adds, p.subtracts) {
		if l.marks == nil {
			continue
		}
		err := l.batches(ctx, q.Header, cmp.Or(req.pageBytes, defaultPageBytes), batchLists,
			func(lists []indexheader.List) error { return each(spansOf(nil, lists)) })
		if err != nil {
			return p.stats, err
		}
	}
	return p.stats, nil
}

// result returns what a request with these matchers gets.
func (k *kept) result(canonical []*labels.Matcher) Result {
	r := Result{Refs: k.refs, Stats: k.stats, PageBytes: k.touched}
	for _, i := range k.pending {
		r.Pending = append(r.Pending, canonical[i])
	}
	return r
}

// charged is result for a request that did not read the postings itself.
func (k *kept) charged(
	canonical []*labels.Matcher, acct *pagecache.Account,
) (Result, error) {
	if err := Charge(acct, k.touched); err != nil {
		return Result{}, fmt.Errorf("postings: %w", err)
	}
	return k.result(canonical), nil
}

// Charge charges bytes of index pages to acct, for a request that gets from a cache what they hold.
// It counts no read.
func Charge(acct *pagecache.Account, bytes int64) error {
	if acct == nil || acct.Spend == nil || bytes == 0 {
		return nil
	}
	return acct.Spend(bytes, 0)
}
