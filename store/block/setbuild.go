package block

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"

	"larder/indexcache"
	"larder/internal/bucket/slots"
	"larder/internal/pagecache"
	"larder/internal/panics"
	"larder/internal/telemetry"
	"larder/store/postings"
)

// setBuild is a series set under construction: a log of the segments that one stream of all series
// and chunks has returned so far. Any number of requests read the log, each at its own pace and for
// its own time range, shard and limits. A reader that needs the segment after the last one starts a
// goroutine that decodes it. Therefore a request that stalls or ends delays no other, and a segment
// is decoded only once a request needs it.
//
// The stream has a context of its own, which ends with the last reader. If the stream fails, or if
// the log may not grow, readers continue with streams of their own. An error is returned only to
// the reader that hits it, and is not remembered.
type setBuild struct {
	block  *Block
	sets   *SeriesSets
	key    indexcache.SetKey
	wanted bool  // as indexcache.SeriesSets.Pays returned it: the set is requested repeatedly
	plan   *Plan // of the stream; open until the last reader leaves
	opts   StreamOptions

	ctx    context.Context
	cancel context.CancelFunc
	share  func(reader context.Context) // makes its reads as urgent as those of the reader

	readers int // guarded by Block.mu

	// touched adds up the bytes of pages that the stream used, excess those that were read from the
	// bucket beyond them.
	touched, excess atomic.Int64
	// stream, counted and release belong to the goroutine that decodes
	stream  *Stream
	counted StreamStats
	release func() // the set, once it is complete

	// guards the fields below; never held while decoding, waiting or calling out
	mu       sync.Mutex
	state    buildState
	segments []*setSegment // the first one has number base
	base     int
	tail     int64           // bytes of pages after the last segment
	bytes    int64           // of the set so far
	reserved int64           // bytes that sets has reserved for it
	runBytes int64           // the smallest of the readers'
	decoding chan struct{}   // closed when the segment being decoded is done; nil: none is
	reader   context.Context // for which it is decoded: its reads are below the span of that
	credit   *setCredit      // work that no reader has counted yet
}

// setCredit is work that was done for a set. One reader counts it as its own.
type setCredit struct {
	stats  StreamStats
	pages  pagecache.Account
	excess int64
}

type buildState int

const (
	// buildGrows: the log has all segments so far.
	buildGrows buildState = iota
	// buildPasses: the set is too large to be kept. The log has only the last segment, and readers
	// that follow closely still share the stream.
	buildPasses
	// buildComplete: the stream has ended. The log has all segments, or the last one if the set was
	// too large.
	buildComplete
	// buildFailed: the log is dropped. Readers continue with streams of their own.
	buildFailed
)

// errBuildEnded tells a reader to continue with a stream of its own.
var errBuildEnded = errors.New("the construction of the series set has ended")

// logged is what a reader gets from the log.
type logged struct {
	segment   *setSegment
	tailBytes int64 // at the end
	credit    *setCredit
}

// segment returns segment number at of the set, io.EOF after the last one, and errBuildEnded if the
// log will never have it.
func (b *setBuild) segment(ctx context.Context, at int) (logged, error) {
	for {
		b.mu.Lock()
		got := logged{credit: b.credit}
		b.credit = nil
		switch {
		case b.state == buildFailed || at < b.base:
			b.mu.Unlock()
			return got, errBuildEnded
		case at < b.base+len(b.segments):
			got.segment = b.segments[at-b.base]
			b.mu.Unlock()
			return got, nil
		case b.state == buildComplete:
			got.tailBytes = b.tail
			b.mu.Unlock()
			return got, io.EOF
		}
		b.credit = got.credit // for the reader that gets the segment
		mine := b.decoding == nil
		if mine {
			b.decoding, b.reader = make(chan struct{}), ctx
			go b.decode(ctx, b.decoding, b.runBytes)
		}
		wait, reader := b.decoding, b.reader
		b.mu.Unlock()
		b.share(ctx)
		if err := b.wait(ctx, wait, mine, reader); err != nil {
			return logged{}, err
		}
	}
}

// wait waits until a segment is decoded. Unless it is decoded for the reader, the wait has a span.
func (b *setBuild) wait(
	ctx context.Context, decoded <-chan struct{}, mine bool, reader context.Context,
) error {
	if !mine {
		defer telemetry.AwaitShared(ctx, "series_set_shared", reader,
			attribute.String("block", b.block.meta.ID.String()))()
	}
	select {
	case <-decoded:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// decode decodes the next segment for a reader, then closes done. It does not end with the reader.
func (b *setBuild) decode(reader context.Context, done chan struct{}, runBytes int64) {
	err := panics.Contained(func() error { return b.advance(reader, runBytes) })()
	if err != nil {
		b.block.deps.Panics.Note(err) // the streams of readers may not panic
		b.fail()
	}
	credit := b.work()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.credit != nil {
		b.credit.pages.MoveTo(&credit.pages)
		credit.stats.Add(b.credit.stats)
		credit.excess += b.credit.excess
	}
	b.credit, b.decoding, b.reader = credit, nil, nil
	close(done)
}

// advance decodes the next segment and appends it to the log, or ends the log. Its reads are below
// the span of the reader.
func (b *setBuild) advance(reader context.Context, runBytes int64) error {
	if b.stream == nil {
		b.stream = b.plan.decode(b.ctx, b.opts)
	}
	b.stream.tracedBy(reader)
	if err := b.stream.limitRuns(runBytes); err != nil {
		return err
	}
	seg, err := b.stream.Next()
	if errors.Is(err, io.EOF) {
		b.complete(b.touched.Swap(0))
		return nil
	}
	if err != nil {
		return err
	}
	return b.append(newSetSegment(seg, b.touched.Swap(0)))
}

// work returns what the stream has done since the last call.
func (b *setBuild) work() *setCredit {
	c := &setCredit{excess: b.excess.Swap(0)}
	b.opts.Account.MoveTo(&c.pages)
	if b.stream == nil {
		return c
	}
	st := b.stream.Stats()
	c.stats = StreamStats{
		Entries:      st.Entries - b.counted.Entries,
		EntryBytes:   st.EntryBytes - b.counted.EntryBytes,
		FollowUps:    st.FollowUps - b.counted.FollowUps,
		SortedSeries: st.SortedSeries - b.counted.SortedSeries,
	}
	b.counted = st
	return c
}

// Reserve is TryReserve for bytes that the stream cannot do without.
func (b *setBuild) Reserve(n int64) error {
	if !b.TryReserve(n) {
		return errBuildEnded
	}
	return nil
}

// TryReserve reserves n more bytes of those for sets under construction.
func (b *setBuild) TryReserve(n int64) bool {
	if !b.sets.TryReserve(n) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reserved += n
	return true
}

// Release releases n bytes, or all that are reserved if they are fewer.
func (b *setBuild) Release(n int64) {
	b.mu.Lock()
	n = min(n, b.reserved)
	b.reserved -= n
	b.mu.Unlock()
	b.sets.Release(n)
}

// releaseAll releases all bytes: the log is dropped, or the cache accounts for the set.
func (b *setBuild) releaseAll() { b.Release(math.MaxInt64) }

// append adds a segment to the log. If the log may not grow, it passes the segment on without
// keeping it, or returns an error that ends the build.
func (b *setBuild) append(seg *setSegment) error {
	if b.grows() {
		n := seg.bytes()
		if !b.sets.TooLarge(b.key, b.size()+n) && b.TryReserve(n) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.segments, b.bytes = append(b.segments, seg), b.bytes+n
			return nil
		}
		if b.stream.sorted != nil {
			// The sorted series stay in memory, which no reservation covers any more.
			return errBuildEnded
		}
		b.block.forgetBuild(b)
		defer b.Release(b.logBytes())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = buildPasses
	b.base += len(b.segments)
	b.segments = []*setSegment{seg}
	return nil
}

func (b *setBuild) grows() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state == buildGrows
}

// size returns the size of the set so far.
func (b *setBuild) size() int64 {
	return b.logBytes() + setOverhead + int64(len(b.key.Identity))
}

// logBytes returns the bytes of the log so far.
func (b *setBuild) logBytes() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}

// complete ends the log and offers the set to the cache.
//
// INVARIANT: the cache has the set before a reader sees the end, because a request that follows
// must find it, unless the cache refused it.
func (b *setBuild) complete(tail int64) {
	if b.grows() {
		b.mu.Lock()
		set := &seriesSet{
			segments: b.segments, tailBytes: tail,
			postings: b.plan.Postings(), lazy: b.plan.Lazy(), postingsBytes: b.plan.postingsBytes,
		}
		b.mu.Unlock()
		for _, seg := range set.segments {
			if !seg.ascending {
				set.copied = max(set.copied, segmentChunkBytes*int64(seg.chunks.Len()))
			}
		}
		b.release = b.sets.Put(b.key, set, b.size(), b.wanted)
		b.block.forgetBuild(b)
		b.releaseAll()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state, b.tail = buildComplete, tail
}

// fail ends the log. Readers continue with streams of their own.
func (b *setBuild) fail() {
	b.block.forgetBuild(b)
	b.cancel()
	if b.stream != nil {
		b.stream.Close()
	}
	b.mu.Lock()
	b.state, b.segments = buildFailed, nil
	b.mu.Unlock()
	b.releaseAll()
}

// limitRuns limits how much index the stream reads at a time to the smallest RunBytes of its
// readers, because their reservations pay for the stream.
func (b *setBuild) limitRuns(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.runBytes == 0 || n < b.runBytes {
		b.runBytes = n
	}
}

// join returns a plan that reads the log. The caller holds Block.mu.
func (b *setBuild) join() *Plan {
	b.readers++
	p := *b.plan
	p.release, p.build, p.stats, p.headerWait = nil, b, postings.Stats{}, 0
	return &p
}

// leave is called once for each join. The last call ends the stream and releases everything before
// it returns.
func (b *setBuild) leave() {
	if !b.block.leaveBuild(b) {
		return
	}
	b.cancel()
	b.mu.Lock()
	wait := b.decoding
	b.mu.Unlock()
	if wait != nil {
		<-wait
	}
	if b.stream != nil {
		b.stream.Close()
	}
	b.releaseAll()
	if b.release != nil {
		b.release()
	}
	b.plan.Close()
}

// startBuild returns a plan that reads a new set, or the one that is under construction already.
// The new set owns p, or p is closed.
func (b *Block) startBuild(
	ctx context.Context, p *Plan, key indexcache.SetKey, wanted bool,
) (out *Plan, fresh bool) {
	n := &setBuild{block: b, sets: b.deps.Sets, key: key, wanted: wanted, plan: p}
	n.ctx, n.share = slots.Share(context.WithoutCancel(ctx))
	n.ctx, n.cancel = context.WithCancel(n.ctx)
	n.opts = StreamOptions{
		MinTime: math.MinInt64, MaxTime: math.MaxInt64,
		RunBytes: defaultRunBytes,
		OnePass:  true,
		Account: &pagecache.Account{Spend: func(touched, fetched int64) error {
			n.touched.Add(touched)
			n.excess.Add(max(fetched-touched, 0))
			return nil
		}},
		Reserver: n,
	}
	b.mu.Lock()
	running := b.builds[key.Identity]
	// A construction that was planned before the block was found irregular will fail.
	if running == nil || running.plan.irregular != p.irregular {
		running = n
		if b.builds == nil {
			b.builds = map[string]*setBuild{}
		}
		b.builds[key.Identity] = n
	}
	out = running.join()
	b.mu.Unlock()
	if running != n {
		n.cancel()
		b.deps.Sets.Joined()
		return p.replacedBy(out), false
	}
	out.stats, out.headerWait = p.stats, p.headerWait
	return out, true
}

// joinBuild returns a plan that reads the set under construction with this key; nil if there is
// none.
func (b *Block) joinBuild(key indexcache.SetKey) *Plan {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := b.builds[key.Identity]; n != nil && n.plan.irregular == b.irregular.Load() {
		b.deps.Sets.Joined()
		return n.join()
	}
	return nil
}

// forgetBuild removes a build from those that requests may join.
func (b *Block) forgetBuild(n *setBuild) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.builds[n.key.Identity] == n {
		delete(b.builds, n.key.Identity)
	}
}

// leaveBuild removes a reader from a build and reports whether it was the last one.
func (b *Block) leaveBuild(n *setBuild) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	n.readers--
	if n.readers > 0 {
		return false
	}
	if b.builds[n.key.Identity] == n {
		delete(b.builds, n.key.Identity)
	}
	return true
}
