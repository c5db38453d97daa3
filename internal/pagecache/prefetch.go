package pagecache

import (
	"context"
	"slices"

	"larder/internal/bytecache"
)

// Keys returns the keys of the pages that span lies in. It returns nil if a page has no key and can
// therefore not be kept.
func (r *Reader) Keys(obj Object, span Span) []bytecache.Key {
	obj = r.named(obj)
	if span.Off < 0 || span.End > obj.Size || span.End <= span.Off {
		return nil
	}
	first, last := span.Off>>r.shift, (span.End-1)>>r.shift
	keys := make([]bytecache.Key, 0, last-first+1)
	for no := first; no <= last; no++ {
		key, ok := obj.cacheKey(no, r.shift)
		if !ok {
			return nil
		}
		keys = append(keys, key)
	}
	return keys
}

// Prefetch reads pages of span from the bucket with one read, and returns what it read and the
// pages. It leaves out pages that another read brings: it begins after those at the start of span,
// and ends before the next one. It may read nothing.
//
// It asks no cache, and keeps nothing in that of the reader: the caller decides where the pages are
// kept. keep gets each page as it arrives, before requests can miss it. It must not wait. Requests
// that need one of the pages meanwhile wait for this read, which then becomes demand. It counts in
// no metric of requests. The class of ctx says how the read queues, see internal/bucket/slots.
func (r *Reader) Prefetch(
	ctx context.Context, obj Object, span Span, keep func(key bytecache.Key, value []byte),
) (done Span, values [][]byte, err error) {
	obj = r.named(obj)
	pages, _, err := r.touch(obj, []Span{span})
	if err != nil {
		return Span{}, nil, err
	}
	c, list, err := r.claimAhead(ctx, obj, pages.list, keep)
	if err != nil || len(list) == 0 {
		return Span{}, nil, err
	}
	c.join(ctx)
	r.launch(c)
	if err := r.await(ctx, c, list); err != nil {
		return Span{}, nil, err
	}
	values = make([][]byte, len(list))
	for i := range list {
		values[i] = list[i].b
	}
	return Span{c.own[0].off, c.own[0].end}, values, nil
}

// claimAhead registers one flight for the first pages of list that no flight reads, whatever a plan
// would do, and returns these pages.
func (r *Reader) claimAhead(
	ctx context.Context, obj Object, list []page, keep func(key bytecache.Key, value []byte),
) (*claims, []page, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nil, ErrClosed
	}
	inFlight := func(p page) bool {
		key, ok := pageKey(obj.ID, p.no)
		return ok && r.table[key] != nil
	}
	first := slices.IndexFunc(list, func(p page) bool { return !inFlight(p) })
	if first < 0 {
		return nil, nil, nil
	}
	list = list[first:]
	if n := slices.IndexFunc(list, inFlight); n >= 0 {
		list = list[:n]
	}
	c := &claims{obj: obj, pages: make([]claim, len(list))}
	for i := range list {
		c.pages[i] = claim{at: i, wait: -1}
	}
	whole := []read{{first: list[0].no, last: list[len(list)-1].no}}
	r.registerLocked(ctx, c, r.geometry(obj), whole, true, &tally{})
	c.own[0].keep = keep
	r.waitLocked(c, list)
	return c, list, nil
}

// metricsOf returns the metrics that count a flight.
func (r *Reader) metricsOf(f *flight) *metrics {
	if f.keep != nil {
		return r.ahead
	}
	return r.metrics
}
