package block

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"

	"larder/indexcache"
	"larder/internal/bytecache"
	"larder/internal/pagecache"
	"larder/internal/panics"
	"larder/internal/telemetry"
	"larder/internal/tsdbfmt"
	"larder/store/indexheader"
)

// PostingsCache keeps expanded postings: *indexcache.Postings.
type PostingsCache interface {
	// Get finds what is in memory, Fetch what is in memcached.
	Get(key bytecache.Key) ([]byte, bool)
	Fetch(ctx context.Context, key bytecache.Key) ([]byte, bool)
	// Set takes values that begin with indexcache.AppendID.
	Set(key bytecache.Key, value []byte)
	Del(key bytecache.Key)
	Joined()
}

// keptPostings are expanded postings as they are shared by requests: pending matchers by their
// places in the canonical order, which all requests for the same matchers have in common.
//
// INVARIANT: refs are never written to once they are here.
type keptPostings struct {
	refs    []uint32
	pending []int
	stats   PostingsStats
	// touched are the bytes of the index pages that finding them took. Every request is charged for
	// them, as if it had read them itself: what is kept must not decide about a limit.
	touched int64
}

// eagerness says which posting lists are read although checking the series that are left would cost
// less. It is part of the key of kept postings.
type eagerness byte

const (
	lazily  eagerness = iota // none
	eagerly                  // those of all groups but the ones that select nearly everything
	wholly                   // all: no matcher stays pending
)

// eagerness returns how the matchers with such a hash are planned.
func (b *Block) eagerness(matchers uint64, irregular bool) eagerness {
	switch {
	case irregular:
		// a label that occurs twice matches by its postings, which the normalised labels do not
		// show
		return wholly
	case b.wasZero(matchers):
		return eagerly
	}
	return lazily
}

// expand finds the postings of matchers: kept ones, those that another request is about to find, or
// by reading the index. It returns the bytes of index pages that this takes without a cache.
func (b *Block) expand(
	ctx context.Context, h *indexheader.Header, matchers *matcherSet, index pagecache.Object,
	opts *PlanOptions, mode eagerness,
) (expanded, int64, error) {
	acct := opts.Account
	// Read in this order even where nothing is kept: which lists are worth reading may depend on
	// it, and what a request is charged with that.
	canonical := matchers.canonical
	pc := b.deps.Postings
	if pc == nil {
		k, err := b.readPostings(ctx, h, canonical, index, acct, mode)
		if err == nil {
			err = opts.reserve(refBytes * int64(len(k.refs)))
		}
		return k.answer(canonical), k.touched, err
	}
	key := indexcache.PostingsKey(
		b.meta.ID, b.meta.Content, byte(mode), b.indexPage(), matchers.text,
	)
	refs := refRange(h)
	if v, ok := pc.Get(key); ok {
		if err := opts.reserve(refBytes * keptCount(v)); err != nil {
			return expanded{}, 0, err
		}
		if k, ok := decodePostings(v, refs, len(canonical)); ok {
			k.stats.Lookups, k.stats.Cached = 1, 1
			return k.charged(canonical, acct)
		}
		b.deps.Corruptions.Mended(telemetry.CorruptCache, 1)
		pc.Del(key)
	}
	// What the request's account spends by may be another function when this ends: the request may
	// have failed by another block, and be planned anew, while others wait for what it began here.
	mine := acct
	if acct != nil {
		mine = &pagecache.Account{Spend: acct.Spend}
	}
	k, joined, err := b.expansions.Do(
		ctx,
		key.ID,
		func(ctx context.Context) (k keptPostings, err error) {
			if acct != nil {
				defer mine.MoveTo(acct)
			}
			err = panics.Contained(func() error {
				if v, ok := pc.Fetch(ctx, key); ok {
					if k, ok = decodePostings(v, refs, len(canonical)); ok {
						k.stats.Cached = 1
						return spend(mine, k.touched)
					}
					b.deps.Corruptions.Mended(telemetry.CorruptCache, 1)
					pc.Del(key)
				}
				// The request that began this may be gone before it ends, and its hold on the header
				// with it.
				h, release, err := b.deps.Headers.Acquire(ctx, b.Source())
				if err != nil {
					return fault(fmt.Errorf("index header: %w", err))
				}
				defer release()
				if k, err = b.readPostings(ctx, h, canonical, index, mine, mode); err != nil {
					return err
				}
				pc.Set(key, appendPostings(indexcache.AppendID(nil, key), &k))
				return nil
			})()
			return k, err
		},
	)
	if err != nil {
		return expanded{}, 0, err
	}
	// They are there already, in the hands of all that wait for them: none of them goes on with
	// them but those that may.
	if err := opts.reserve(refBytes * int64(len(k.refs))); err != nil {
		return expanded{}, 0, err
	}
	k.stats.Lookups = 1
	if joined {
		pc.Joined()
		// The work was the other request's, and is counted there.
		k.stats.Cached, k.stats.Values, k.stats.Repaired = 0, 0, 0
		return k.charged(canonical, acct)
	}
	return k.answer(canonical), k.touched, nil
}

// mendingPages are pages whose reading again is charged to somebody of its own.
type mendingPages struct {
	Pages
	acct *pagecache.Account
}

func (m mendingPages) Refetch(
	ctx context.Context, obj pagecache.Object, span pagecache.Span, _ *pagecache.Account,
) (*pagecache.Pages, error) {
	return m.Pages.Refetch(ctx, obj, span, m.acct)
}

// readPostings expands matchers, which are in canonical order, from the index.
func (b *Block) readPostings(
	ctx context.Context, h *indexheader.Header, canonical []*labels.Matcher, index pagecache.Object,
	acct *pagecache.Account, mode eagerness,
) (keptPostings, error) {
	// What this takes is counted apart: a request plans many blocks at once on one account. What
	// was damaged and is read again is not part of it: whoever is given these postings later does
	// not pay for that.
	var touched atomic.Int64
	mine := &pagecache.Account{Spend: func(t, fetched int64) error {
		touched.Add(t)
		if acct == nil || acct.Spend == nil {
			return nil
		}
		return acct.Spend(t, fetched)
	}}
	room := b.deps.Expansions.room()
	defer room.close()
	got, err := expandPostings(ctx, h, mendingPages{b.deps.Index, acct}, postingsRequest{
		room:        room,
		pageBytes:   b.indexPage(),
		matchers:    canonical,
		object:      index,
		account:     mine,
		seriesBytes: b.meanEntry(h),
		eager:       mode >= eagerly,
		complete:    mode >= wholly,
	})
	if acct != nil {
		mine.MoveTo(acct)
	}
	b.deps.Corruptions.Mended(telemetry.CorruptPostings, got.stats.Repaired)
	if err != nil {
		if corrupt(err) {
			b.deps.Corruptions.Failed(telemetry.CorruptPostings)
		}
		return keptPostings{stats: got.stats}, err
	}
	k := keptPostings{refs: got.refs, stats: got.stats, touched: touched.Load()}
	for i, m := range canonical {
		if slices.Contains(got.pending, m) {
			k.pending = append(k.pending, i)
		}
	}
	return k, nil
}

// answer is what a request with these matchers gets.
func (k *keptPostings) answer(canonical []*labels.Matcher) expanded {
	e := expanded{refs: k.refs, stats: k.stats}
	for _, i := range k.pending {
		e.pending = append(e.pending, canonical[i])
	}
	return e
}

// charged is answer for a request that has not read what it gets.
func (k *keptPostings) charged(
	canonical []*labels.Matcher, acct *pagecache.Account,
) (expanded, int64, error) {
	if err := spend(acct, k.touched); err != nil {
		return expanded{}, 0, fmt.Errorf("postings: %w", err)
	}
	return k.answer(canonical), k.touched, nil
}

func spend(acct *pagecache.Account, touched int64) error {
	if acct == nil || acct.Spend == nil || touched == 0 {
		return nil
	}
	return acct.Spend(touched, 0)
}

// refBounds are what references of a block's series lie between: [first, end).
type refBounds struct{ first, end uint64 }

func refRange(h *indexheader.Header) refBounds {
	toc := h.TOC()
	unit := uint64(tsdbfmt.SeriesOffset(h.IndexVersion(), 1))
	end := uint64(toc.SectionEnd(toc.Series, h.IndexSize()))
	return refBounds{first: uint64(toc.Series) / unit, end: min((end+unit-1)/unit, 1<<32)}
}

// Expanded postings are kept as
//
//	label names with matchers, of these pending ones, lists, bytes of the lists, upper bound of the postings, bytes of index pages,
//	number of pending matchers, each one's place in the canonical order,
//	number of references, the first one, and what each of the others adds to the one before it
//
// all of them uvarints. What precedes them is the identity, which has the version.

// appendPostings appends k to dst. It makes room for what it writes and no more: a cache accounts
// for the length of a value.
func appendPostings(dst []byte, k *keptPostings) []byte {
	figures := append(
		make([]uint64, 0, 16), uint64(k.stats.Groups), uint64(k.stats.Pending),
		uint64(k.stats.Lists), uint64(k.stats.ListBytes), uint64(k.stats.MaxSeries),
		uint64(k.touched), uint64(len(k.pending)),
	)
	for _, i := range k.pending {
		figures = append(figures, uint64(i))
	}
	figures = append(figures, uint64(len(k.refs)))
	size := 0
	for _, n := range figures {
		size += uvarintSize(n)
	}
	last := uint32(0)
	for _, ref := range k.refs {
		size += uvarintSize(uint64(ref - last))
		last = ref
	}
	dst = slices.Grow(dst, size)
	for _, n := range figures {
		dst = binary.AppendUvarint(dst, n)
	}
	last = 0
	for _, ref := range k.refs {
		dst = binary.AppendUvarint(dst, uint64(ref-last))
		last = ref
	}
	return dst
}

// keptCount returns how many references a value says that it has, which are at most as many as it
// has bytes.
func keptCount(b []byte) int64 {
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		b = b[max(n, 0):]
		return v
	}
	const figures = 6
	for range figures {
		next()
	}
	for n := next(); n > 0 && len(b) > 0; n-- {
		next()
	}
	return int64(min(next(), uint64(len(b))))
}

// reserve reserves n bytes.
func (o *PlanOptions) reserve(n int64) error {
	if o.Reserve == nil || n == 0 {
		return nil
	}
	return o.Reserve(n)
}

// uvarintSize returns how many bytes a number takes as an uvarint.
func uvarintSize(n uint64) int { return (bits.Len64(n|1) + 6) / 7 }

// maxKeptFigure bounds the figures of kept postings: beyond it they are not what a block can come
// to.
const maxKeptFigure = 1 << 48

// decodePostings reads what appendPostings has written for a request of so many matchers. It trusts
// nothing: ok is false for whatever cannot be the postings of a block with such references.
func decodePostings(b []byte, bounds refBounds, matchers int) (k keptPostings, ok bool) {
	bad := false
	next := func() int64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > maxKeptFigure {
			bad, b = true, nil
			return 0
		}
		b = b[n:]
		return int64(v)
	}
	k.stats.Groups, k.stats.Pending, k.stats.Lists = int(next()), int(next()), int(next())
	k.stats.ListBytes, k.stats.MaxSeries, k.touched = next(), next(), next()
	for n := next(); n > 0 && !bad; n-- {
		i := next()
		if i >= int64(matchers) || len(k.pending) > 0 && int(i) <= k.pending[len(k.pending)-1] {
			return keptPostings{}, false
		}
		k.pending = append(k.pending, int(i))
	}
	count := next()
	if bad || count > int64(len(b)) || k.stats.Groups > matchers ||
		k.stats.Pending > k.stats.Groups {
		return keptPostings{}, false
	}
	if count == 0 {
		return k, len(b) == 0
	}
	k.refs = make([]uint32, count)
	ref := uint64(0)
	for i := range k.refs {
		if len(b) == 0 {
			return keptPostings{}, false
		}
		delta := uint64(b[0])
		n := 1
		if delta >= 0x80 {
			if delta, n = binary.Uvarint(b); n <= 0 {
				return keptPostings{}, false
			}
		}
		if delta == 0 && i > 0 || delta >= bounds.end {
			return keptPostings{}, false
		}
		b = b[n:]
		ref += delta
		if i == 0 && ref < bounds.first || ref >= bounds.end {
			return keptPostings{}, false
		}
		k.refs[i] = uint32(ref)
	}
	return k, len(b) == 0
}
