package block

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"sync/atomic"

	"larder/indexcache"
	"larder/internal/pagecache"
	"larder/internal/panics"
	"larder/store/postings"
)

// setBuild is a series set under construction: a log of the segments that one stream of all series
// and chunks has returned so far. Any number of requests read the log, each at its own pace and for
// its own time range, shard and limits. Whoever needs the segment after the last starts its
// decoding, which goes on in a goroutine of its own until the segment is there: so a request that
// stalls or gives up holds up nobody, and nothing is decoded that nobody asked for.
//
// The stream runs on its own context, which ends when the last reader leaves. If it fails, or if
// the log may not grow, readers go on by themselves: an error is never anybody's but of who meets
// it, and is not remembered.
type setBuild struct {
	block  *Block
	sets   *SeriesSets
	key    indexcache.SetKey
	wanted bool  // see indexcache.SeriesSets.Pays
	plan   *Plan // what is streamed, open as long as there are readers
	opts   StreamOptions

	ctx    context.Context
	cancel context.CancelFunc

	readers int // guarded by Block.mu

	// touched and excess add up what the stream's reads cost: page bytes that it used, and those
	// that were read of the bucket beyond them.
	touched, excess atomic.Int64
	// stream, counted and release belong to the goroutine that decodes.
	stream  *Stream
	counted StreamStats
	release func() // of the set, once it is complete

	mu       sync.Mutex // guards what follows; never held while decoding, waiting or calling out
	state    buildState
	segments []*setSegment // from number base on
	base     int
	tail     int64         // bytes that came after the last segment
	bytes    int64         // of the set so far
	reserved int64         // bytes that sets has reserved for it
	runBytes int64         // the smallest of the readers'
	decoding chan struct{} // closed when the segment that is being decoded is there; nil: none is
	credit   *setCredit    // work that no reader has taken yet
}

// setCredit is work that was done for a set: the one reader that takes it counts it as its own.
type setCredit struct {
	stats  StreamStats
	pages  pagecache.Account
	excess int64
}

type buildState int

const (
	// buildGrows: the log has all segments so far.
	buildGrows buildState = iota
	// buildPasses: the set is too large to be kept. Readers that are at the end of the log still
	// share the stream; there is no other segment than the last.
	buildPasses
	// buildComplete: the log has all segments, or had in passing.
	buildComplete
	// buildFailed: readers go on by themselves.
	buildFailed
)

// errGoAlone tells a reader that the log has no more for it, though the set goes on.
var errGoAlone = errors.New("the series set is not built any further")

// logged is what a reader gets of the log.
type logged struct {
	segment   *setSegment
	tailBytes int64 // at the end
	credit    *setCredit
}

// segment returns segment number at of the set, io.EOF behind the last, and errGoAlone if the log
// does not have it and will not.
func (b *setBuild) segment(ctx context.Context, at int) (logged, error) {
	for {
		b.mu.Lock()
		got := logged{credit: b.credit}
		b.credit = nil
		switch {
		case b.state == buildFailed || at < b.base:
			b.mu.Unlock()
			return got, errGoAlone
		case at < b.base+len(b.segments):
			got.segment = b.segments[at-b.base]
			b.mu.Unlock()
			return got, nil
		case b.state == buildComplete:
			got.tailBytes = b.tail
			b.mu.Unlock()
			return got, io.EOF
		}
		b.credit = got.credit // with the segment, or whatever comes
		if b.decoding == nil {
			b.decoding = make(chan struct{})
			go b.decode(b.decoding, b.runBytes)
		}
		wait := b.decoding
		b.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return logged{}, ctx.Err()
		}
	}
}

// decode brings the next segment into the log.
func (b *setBuild) decode(done chan struct{}, runBytes int64) {
	if err := panics.Contained(func() error { return b.advance(runBytes) })(); err != nil {
		b.block.deps.Panics.Note(err) // readers go on by themselves, and may not meet it
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
	b.credit, b.decoding = credit, nil
	close(done)
}

// advance decodes the next segment and appends it to the log, or ends the log.
func (b *setBuild) advance(runBytes int64) error {
	if b.stream == nil {
		b.stream = b.plan.decode(b.ctx, b.opts)
	}
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
		return errGoAlone
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

// append adds a segment to the log. What it may not hold is only passed on, or ends it with an
// error.
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
			// It goes on holding all that it has sorted, which only its readers' own reservations
			// could make up for.
			return errGoAlone
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

// size returns the bytes of the set so far.
func (b *setBuild) size() int64 {
	return b.logBytes() + setOverhead + int64(len(b.key.Identity))
}

// logBytes returns the bytes of the log so far.
func (b *setBuild) logBytes() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}

// complete ends the log and offers the set to the cache. INVARIANT: a reader that sees the end, and
// who hears of it, finds the set there if the cache took it.
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

// fail ends the log: readers go on by themselves.
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

// limitRuns notes how much index a reader would read at a time: what it has reserved holds the
// build's stream, too.
func (b *setBuild) limitRuns(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.runBytes == 0 || n < b.runBytes {
		b.runBytes = n
	}
}

// join returns a plan that reads the log. Block.mu is held.
func (b *setBuild) join() *Plan {
	b.readers++
	p := *b.plan
	p.release, p.build, p.stats, p.headerWait = nil, b, postings.Stats{}, 0
	return &p
}

// leave is called once for each join. After the last the stream ends, and nothing of it is left
// when leave returns.
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

// startBuild returns a plan that reads a new set, wanted or not, or the one that is under
// construction already. It takes p over.
func (b *Block) startBuild(
	ctx context.Context, p *Plan, key indexcache.SetKey, wanted bool,
) (out *Plan, fresh bool) {
	n := &setBuild{block: b, sets: b.deps.Sets, key: key, wanted: wanted, plan: p}
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
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
	if running == nil || running.plan.irregular != p.irregular {
		// The construction of a block that was found irregular meanwhile is going to fail.
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

// joinBuild returns a plan that reads the set of this key that is under construction, nil if there
// is none.
func (b *Block) joinBuild(key indexcache.SetKey) *Plan {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := b.builds[key.Identity]; n != nil && n.plan.irregular == b.irregular.Load() {
		b.deps.Sets.Joined()
		return n.join()
	}
	return nil
}

// forgetBuild takes a build out of those that may be joined.
func (b *Block) forgetBuild(n *setBuild) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.builds[n.key.Identity] == n {
		delete(b.builds, n.key.Identity)
	}
}

// leaveBuild takes a reader from a build and reports whether it was the last.
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
