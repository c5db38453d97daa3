package pagecache

import (
	"context"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"larder/internal/bucket/slots"
	"larder/internal/panics"
	"larder/internal/quantile"
)

// Reader reads spans of objects through pages. It is safe for concurrent use.
type Reader struct {
	bucket  Bucket
	cache   Cache
	opts    Options
	shift   uint
	metrics *metrics
	// ahead counts reads of Prefetch. It is not registered: the caller has metrics of its own.
	ahead  *metrics
	panics *panics.Guard
	// inFlight accounts for the bytes of running reads.
	inFlight *slots.Bytes
	// buffers has the buffers of bodies, by size: 32 KiB and the powers of two up to 256 KiB, at
	// least a page. A read of few bytes does not hold a large one.
	buffers [bufferSizes]sync.Pool // of *[]byte
	// firstByte estimates the time to the first byte of reads of the bucket.
	firstByte *quantile.Decaying
	// published counts the flights that have ended. A page that was missing from the cache and is
	// in no flight may have been published in between only if this has changed. Written under mu.
	published atomic.Uint64
	// sizesIgnored says that stated sizes are not compared, see IgnoreSizes.
	sizesIgnored atomic.Bool
	// running counts goroutines. Add is called only under mu while not closed, or while the count
	// is above 0.
	running sync.WaitGroup

	mu sync.Mutex // see doc.go
	// table holds the flight of every page that can be joined, by page key.
	table map[uint64]*flight
	// lookups has, by page key, the look-up of every page that the remote tier is being asked for,
	// and of every page that it did not find, until a request claims that page.
	lookups map[uint64]*lookup
	flights map[*flight]struct{} // those that are not over
	closed  bool
}

// New returns a reader of the bucket's objects. The caller owns the cache and closes it after the
// reader.
func New(bucket Bucket, cache Cache, opts Options) *Reader {
	opts = opts.withDefaults()
	r := &Reader{
		bucket:   bucket,
		cache:    cache,
		opts:     opts,
		shift:    uint(bits.TrailingZeros(uint(opts.PageSize))),
		metrics:  newMetrics(opts.Registerer, opts.Kind),
		ahead:    newMetrics(nil, opts.Kind),
		panics:   panics.New("pages", opts.Logger, opts.Registerer),
		inFlight: slots.NewBytes(opts.MaxInFlightBytes),
		table:    map[uint64]*flight{},
		lookups:  map[uint64]*lookup{},
		flights:  map[*flight]struct{}{},

		firstByte: quantile.New(0.95, firstByteSamples),
	}
	for i := range r.buffers {
		size := max(minBodyBuffer<<i, opts.PageSize)
		r.buffers[i].New = func() any { b := make([]byte, size); return &b }
	}
	return r
}

// buffersFor returns the pool of buffers for a body of length bytes.
func (r *Reader) buffersFor(length int64) *sync.Pool {
	i := bits.Len64(uint64(max(length-1, 0) / minBodyBuffer))
	return &r.buffers[min(i, bufferSizes-1)]
}

// IgnoreSizes makes the reader trust Object.Size even if the answer to a read states another size.
// It is for a bucket, or a proxy before it, that is known to state wrong sizes.
func (r *Reader) IgnoreSizes() { r.sizesIgnored.Store(true) }

// PageSize returns the size of a page in bytes, a power of two.
func (r *Reader) PageSize() int { return 1 << r.shift }

// firstByteSamples is the number of reads before FirstByteP95 has an estimate.
const firstByteSamples = 32

// FirstByteP95 returns the time within which the bucket sends the first byte of 19 of 20 recent
// reads. It is 0 before enough reads were seen. Waiting longer than that for another cache does not
// pay.
func (r *Reader) FirstByteP95() time.Duration { return r.firstByte.Value() }

// Close cancels all flights and look-ups and waits for them to return. Waiting and later calls of
// Fetch return ErrClosed.
func (r *Reader) Close() {
	r.mu.Lock()
	wasClosed := r.closed
	r.closed = true
	for f := range r.flights {
		r.endLocked(f, ErrClosed)
	}
	for _, l := range r.lookups {
		l.cancel()
	}
	r.mu.Unlock()
	r.running.Wait()
	if !wasClosed {
		r.metrics.unregister()
	}
}

// Fetch returns the pages that the spans lie in. The spans must be sorted by Off and lie in the
// object. They may overlap, adjoin or be empty.
//
// It waits for all pages or for the end of ctx. A caller that leaves does not affect others that
// wait for the same pages.
func (r *Reader) Fetch(
	ctx context.Context, obj Object, spans []Span, acct *Account,
) (*Pages, error) {
	obj = r.named(obj)
	pages, t, err := r.touch(obj, spans)
	if err != nil {
		return nil, err
	}
	if r.opts.Accesses != nil && obj.ID != Uncached && len(pages.list) > 0 {
		r.opts.Accesses(obj.ID, pages.numbers())
	}
	// The epoch is read before the cache, so that claim notices pages that are published in
	// between.
	epoch := r.published.Load()
	list := pages.list
	misses := 0
	for i := range list {
		if b, ok := r.cached(obj, list[i].no); ok {
			list[i].b = b
			t.hits++
			t.hitBytes += int64(len(b))
			continue
		}
		misses++
	}
	if misses == 0 {
		if err := acct.spend(t.touchedBytes, 0); err != nil {
			return nil, fmt.Errorf("object %s: %w", obj.Name, err)
		}
		r.record(&t, acct)
	} else if err := r.fill(ctx, obj, list, misses, epoch, t, acct); err != nil {
		return nil, err
	}
	pages.seal()
	return pages, nil
}

// Refetch reads the pages of one span again. It drops them from the cache, reads them from the
// bucket without joining a flight, and caches the result. It is for bytes that did not match their
// checksum.
func (r *Reader) Refetch(
	ctx context.Context, obj Object, span Span, acct *Account,
) (*Pages, error) {
	obj = r.named(obj)
	pages, t, err := r.touch(obj, []Span{span})
	if err != nil {
		return nil, err
	}
	list := pages.list
	for i := range list {
		if key, ok := obj.cacheKey(list[i].no, r.shift); ok {
			r.cache.Del(key)
		}
	}
	r.metrics.refetches.Add(float64(len(list)))
	if len(list) > 0 {
		defer acct.waited(time.Now())
		if err := r.fillAlone(ctx, obj, list, t, acct); err != nil {
			return nil, err
		}
	}
	pages.seal()
	return pages, nil
}

// named returns the object. It removes the ID if the object lacks a name for one of the cache's
// tiers.
func (r *Reader) named(obj Object) Object {
	if obj.Block.IsZero() && r.cache.Remote() {
		obj.ID = Uncached
	}
	return obj
}

// touch lists the distinct pages of the spans, without their bytes.
func (r *Reader) touch(obj Object, spans []Span) (*Pages, tally, error) {
	n, last, prev := 0, int64(-1), int64(0)
	for _, s := range spans {
		switch {
		case s.Off < 0 || s.End > obj.Size || s.End < s.Off:
			return nil, tally{}, &SpanError{
				Object: obj.Name, Size: obj.Size, Span: s, Reason: "outside of the object",
			}
		case s.Off < prev:
			return nil, tally{}, &SpanError{
				Object: obj.Name, Size: obj.Size, Span: s,
				Reason: fmt.Sprintf("follows a span that starts at %d", prev),
			}
		}
		prev = s.Off
		if s.Off == s.End {
			continue
		}
		from, to := max(s.Off>>r.shift, last+1), (s.End-1)>>r.shift
		if to >= from {
			n += int(to - from + 1)
			last = to
		}
	}
	p := &Pages{shift: r.shift, list: make([]page, 0, n)}
	last = -1
	for _, s := range spans {
		if s.Off == s.End {
			continue
		}
		for no := max(s.Off>>r.shift, last+1); no <= (s.End-1)>>r.shift; no++ {
			p.list = append(p.list, page{no: no})
			last = no
		}
	}
	t := tally{touched: int64(n), touchedBytes: int64(n) << r.shift}
	if n > 0 {
		t.touchedBytes += r.geometry(obj).pageLen(last) - 1<<r.shift
	}
	return p, t, nil
}

func (r *Reader) geometry(obj Object) geometry { return geometry{shift: r.shift, size: obj.Size} }

// cached returns a page from the cache's memory.
func (r *Reader) cached(obj Object, no int64) ([]byte, bool) {
	key, ok := pageKey(obj.ID, no)
	if !ok {
		return nil, false
	}
	b, ok := r.cache.Get(key)
	if !ok || !r.fits(obj, no, b) {
		return nil, false
	}
	return b, true
}

// InMemory reports whether the page at off is in the cache's memory. It is for callers that plan
// ahead: the page may be evicted before it is fetched.
func (r *Reader) InMemory(obj Object, off int64) bool {
	_, ok := r.cached(r.named(obj), off>>r.shift)
	return ok
}

// fits reports whether a cached value has the length of the page. It drops a value that was kept
// under another size of the object.
func (r *Reader) fits(obj Object, no int64, b []byte) bool {
	if int64(len(b)) == r.geometry(obj).pageLen(no) {
		return true
	}
	if key, ok := obj.cacheKey(no, r.shift); ok {
		r.cache.Del(key)
	}
	return false
}

// fill gets the missing pages of list from flights of other requests, or else from flights of its
// own.
func (r *Reader) fill(
	ctx context.Context, obj Object, list []page, misses int, epoch uint64, t tally, acct *Account,
) error {
	defer acct.waited(time.Now())
	if err := ctx.Err(); err != nil {
		return &ReadError{Object: obj.Name, Off: list[0].no << r.shift, Err: err}
	}
	var q search
	if r.cache.Remote() {
		var err error
		if q, err = r.searchRemote(ctx, obj, list, misses, &t); err != nil {
			return err
		}
	}
	c, err := r.claim(ctx, obj, list, misses, epoch, q, &t, acct)
	if err != nil {
		return err
	}
	c.join(ctx)
	r.told(ctx, c)
	if err := r.start(c, &t, acct); err != nil {
		return err
	}
	return r.await(ctx, c, list)
}

// fillAlone gets the missing pages of list from flights of its own, which no other request can
// join.
func (r *Reader) fillAlone(
	ctx context.Context, obj Object, list []page, t tally, acct *Account,
) error {
	c, err := r.claimAlone(ctx, obj, list, &t, acct)
	if err != nil {
		return err
	}
	c.join(ctx)
	if err := r.start(c, &t, acct); err != nil {
		return err
	}
	return r.await(ctx, c, list)
}
