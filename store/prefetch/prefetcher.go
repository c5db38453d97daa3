package prefetch

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/internal/bytecache"
	"larder/internal/panics"
	"larder/store/catalog"
)

const (
	// lookEvery is how often the Prefetcher asks which blocks were queried, and whether the disk
	// has lost pages.
	lookEvery = 10 * time.Second
	// recently is for how long a query makes a block one that was queried recently.
	recently = 24 * time.Hour
	// againAfter is the least time between two reads of one index, after an eviction.
	againAfter = time.Hour
	// retryAfter is the time after which a block that could not be read is tried again.
	retryAfter = 5 * time.Minute
	// After each of several failures in a row, the wait for the next read doubles.
	minBackoff = time.Second
	maxBackoff = time.Minute
	// pausedFor is the time after which a disk that did not write is looked at again.
	pausedFor = time.Second
	// headerWait bounds the wait for the header of one block while other blocks could have theirs.
	headerWait = time.Second
)

// Prefetcher reads indexes into the disk cache. Its methods may be called from any goroutine.
type Prefetcher struct {
	o       Options
	metrics *metrics
	panics  *panics.Guard
	wake    chan struct{}

	mu      sync.Mutex // guards following
	view    *catalog.View
	since   int64 // the end of the oldest block that fits, see fits
	pending int
	paused  bool
	lost    []object // evictions that Run has not seen

	// The fields below belong to the goroutine of Run.
	chosen  *catalog.View // the view that blocks are from
	blocks  map[ulid.ULID]*block
	queue   []*block // to be read, newest first
	evicted *evictions
	looked  time.Time // when queried was asked for
	queried map[ulid.ULID]time.Time
	losses  int64         // Disk.Lost
	backoff time.Duration // after the last failure; 0: the last read did not fail
}

// object identifies the index of a block in one version of its contents.
type object struct {
	id      ulid.ULID
	content uint64
}

// New returns a Prefetcher. Run makes it read.
func New(o Options) *Prefetcher {
	o = o.withDefaults()
	p := &Prefetcher{
		o: o, wake: make(chan struct{}, 1), blocks: map[ulid.ULID]*block{},
		evicted: newEvictions(o.Dir, o.LockDir),
	}
	p.panics = panics.New("prefetch", o.Logger, o.Registerer)
	p.metrics = newMetrics(p, o.Registerer)
	return p
}

// pendingLocked returns the number of blocks that wait. The caller holds p.mu.
func (p *Prefetcher) pendingLocked() float64 {
	if p.view == nil {
		return math.NaN()
	}
	return float64(p.pending)
}

// ViewChanged tells which blocks are served. Call it before the headers of new blocks are built.
// Until Run has chosen among the blocks, all new ones count as waiting.
func (p *Prefetcher) ViewChanged(old, cur *catalog.View) {
	since := p.newestThatFit(cur)
	p.mu.Lock()
	p.view, p.since = cur, since
	for _, b := range cur.Blocks {
		if o := old.ByID(b.ID); o == nil || o.Content != b.Content {
			p.pending++
		}
	}
	p.mu.Unlock()
	p.notify()
}

// newestThatFit returns the end of the oldest block whose index fits in MaxBytes, together with
// those of all newer ones.
func (p *Prefetcher) newestThatFit(view *catalog.View) int64 {
	blocks := slices.Clone(view.Blocks)
	slices.SortFunc(blocks, func(a, b *catalog.Block) int {
		return cmp.Compare(b.MaxTime, a.MaxTime)
	})
	since, left := int64(math.MaxInt64), p.o.MaxBytes
	for _, b := range blocks {
		if left -= b.IndexSize; left < 0 {
			break
		}
		since = b.MaxTime
	}
	return since
}

// Evicted tells that the disk has removed pages of objects, see diskcache.Options.Evicted.
func (p *Prefetcher) Evicted(objects []bytecache.ID) {
	p.mu.Lock()
	for i := range objects {
		p.lost = append(p.lost, objectOf(&objects[i]))
	}
	p.mu.Unlock()
	p.notify()
}

func (p *Prefetcher) notify() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run reads indexes until ctx ends.
func (p *Prefetcher) Run(ctx context.Context) {
	select {
	case <-p.o.Disk.Loaded():
	case <-ctx.Done():
		return
	}
	_ = p.panics.Do(func() error {
		p.load()
		return nil
	})
	p.losses = p.o.Disk.Lost()
	for ctx.Err() == nil {
		wait := pausedFor // after a panic
		_ = p.panics.Do(func() error {
			wait = p.step(ctx)
			return nil
		})
		if wait == 0 {
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-p.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	_ = p.panics.Do(func() error {
		p.note()
		p.save()
		return nil
	})
}

// step makes at most one read. It returns how long to wait for the next step.
func (p *Prefetcher) step(ctx context.Context) time.Duration {
	p.look()
	b, wait := p.next(ctx)
	if b == nil {
		return wait
	}
	available := p.o.Disk.Available()
	p.mu.Lock()
	p.paused = !available
	p.mu.Unlock()
	if !available {
		return pausedFor
	}
	done, err := p.advance(ctx, b)
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, errPaused):
		return pausedFor
	case err != nil:
		p.failed(b, err)
		return p.backoff
	case done:
		p.metrics.done.Inc()
		p.finish(b)
	}
	p.backoff = 0
	return 0
}

// failed gives up a block for a while. Of several failures in a row only the first is a warning,
// because the bucket may fail for all blocks.
func (p *Prefetcher) failed(b *block, err error) {
	p.metrics.failed.Inc()
	log := p.o.Logger.Debug
	if p.backoff == 0 {
		log = p.o.Logger.Warn
	}
	log("reading an index into the disk cache failed", "block", b.meta.ID, "err", err)
	p.backoff = min(max(2*p.backoff, minBackoff), maxBackoff)
	b.left, b.started, b.retryAt = nil, false, time.Now().Add(retryAfter)
	b.asked = false
	p.dequeue(b)
}

// finish notes that the index of a block is on the disk.
func (p *Prefetcher) finish(b *block) {
	b.left, b.done, b.at = nil, true, time.Now()
	p.dequeue(b)
}
