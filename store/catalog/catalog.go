package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/relabel"

	"larder/internal/flight"
	"larder/internal/panics"
	"larder/internal/sealed"
)

// ErrIncomplete is in the chain of the error of a sync or refresh that did not see the bucket
// whole.
var ErrIncomplete = errors.New("incomplete view of the bucket")

// savedMarksFor is how long deletion marks on disk count as looked up. Older marks still apply, but
// the first sync reads the marks of all blocks again, because many may have been set while the
// process was down.
const savedMarksFor = 6 * time.Hour

// Catalog keeps the view of one bucket. Its methods may be called from any goroutine.
type Catalog struct {
	opts      Options
	log       *slog.Logger
	metrics   *metrics
	panics    *panics.Guard
	bucket    Bucket // for listings
	reader    bucketReader
	local     *localStore
	documents *documents
	diskBad   atomic.Bool // the last write to disk failed

	view  atomic.Pointer[View]
	rules atomic.Pointer[ruling] // for syncs that begin from now on
	// parquet is the state of the Parquet bucket at its last read, written under parquetMu.
	parquet   atomic.Pointer[conversions]
	parquetMu sync.Mutex
	again     chan struct{} // makes Run sync at once
	// reassigned makes Run apply the ownership of blocks.
	reassigned chan struct{}

	// fallback are the blocks that New found on disk, nil for none.
	fallback []*Block

	// turn has a token while no sync runs. The sync that took it owns the fields down to mu.
	turn     chan struct{}
	records  map[ulid.ULID]*record
	broken   map[ulid.ULID]*brokenBlock
	saved    map[ulid.ULID]savedBlock // nil once a sync was complete
	unlisted unlistedBlocks
	// headlessSince is when listings began to show blocks without a single meta.json.
	headlessSince time.Time
	loggedEmpty   bool // that the bucket has no blocks
	syncs         uint64
	incomplete    bool      // the last sync or refresh was
	assigned      uint64    // the number of the ownership of the view
	found         *saved    // result of the running sync, if it was complete
	lastComplete  time.Time // start of the last complete sync or refresh
	excluded      []ExcludedBlock

	mu         sync.Mutex // guards following; held while a view is published
	numbers    numbers
	extents    map[ulid.ULID]*extents  // of measured blocks
	tombstones map[ulid.ULID]time.Time // when an object of a block was found missing
	lastLoss   time.Time               // the last tombstone of a block without a known replacement
	status     Status
	changes    []change // not passed to OnChange yet, oldest first
	notifying  bool     // a goroutine is calling OnChange

	saveMu    sync.Mutex // held while catalog.json is written; guards following
	lastSaved time.Time

	refreshes   flight.Group[struct{}, refreshed]
	lastRefresh refreshed // belongs to the running refresh

	flightMu sync.Mutex // guards following, and the start of flights against Close
	// measurements has the last measurement of each block, which may be running.
	measurements map[measureKey]*measurement

	closing context.Context // ends with Close
	close   context.CancelFunc
	flights sync.WaitGroup
}

// New returns a catalog with an empty view that is not ready. Run or Sync read the bucket. New
// reads only Options.Dir. The caller must call Close.
func New(opts Options) (*Catalog, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Catalog{
		opts:       opts,
		log:        opts.Logger.With("component", "catalog"),
		metrics:    newMetrics(opts.Registerer, opts.ConsistencyDelay.Seconds()),
		panics:     panics.New("catalog", opts.Logger, opts.Registerer),
		bucket:     opts.Bucket,
		reader:     opts.Bucket,
		again:      make(chan struct{}, 1),
		reassigned: make(chan struct{}, 1),
		turn:       make(chan struct{}, 1),
		records:    map[ulid.ULID]*record{},
		broken:     map[ulid.ULID]*brokenBlock{},
		numbers:    newNumbers(),
		tombstones: map[ulid.ULID]time.Time{},

		refreshes:    flight.Group[struct{}, refreshed]{KeepRunning: true},
		measurements: map[measureKey]*measurement{},
	}
	c.documents = newDocuments(opts.DocumentBytes, c.metrics.documents)
	c.local = newLocal(opts.Dir, opts.LockDir, c.documents)
	if b, ok := opts.Bucket.(expectingBucket); ok {
		c.reader = b.ReaderWithExpectedErrs(opts.Bucket.IsObjNotFoundErr)
	}
	c.closing, c.close = context.WithCancel(context.Background())
	c.view.Store(NewView(nil, false))
	c.parquet.Store(&conversions{})
	if c.local.lockDir() != nil {
		c.metrics.diskFailures.Inc() // datadir has logged why
		c.diskBad.Store(true)
	} else if err := c.local.prepare(); err != nil {
		c.diskFailed("catalog directory is not usable", err)
	}
	c.loadRules()
	if c.extents, err = c.local.allExtents(); err != nil {
		c.metrics.damagedCopies.Inc()
		c.noteDamage(err)
		c.log.Warn("saved file sizes do not verify, measuring them again", "err", err)
	}
	c.loadSaved()
	c.turn <- struct{}{}
	return c, nil
}

// Close ends running refreshes and waits for them. Run and Sync end with their own contexts.
func (c *Catalog) Close() {
	c.flightMu.Lock() // no flight starts after this
	c.close()
	c.flightMu.Unlock()
	c.flights.Wait()
}

// View returns the current view; never nil.
func (c *Catalog) View() *View { return c.view.Load() }

// Document returns the meta.json of a block of the view as it was in the bucket, for display. It
// reads a local file, or memory without Options.Dir, and never the bucket. The caller owns the
// result. The error is fs.ErrNotExist if the block is unknown.
func (c *Catalog) Document(id ulid.ULID) ([]byte, error) { return c.local.document(id) }

// Run syncs at once and then at every interval. It returns nil when ctx ends. It retries a failed
// sync after one second, then two, four and so on, up to 30 seconds while the catalog is not ready,
// and up to the interval afterwards.
func (c *Catalog) Run(ctx context.Context) error {
	fallback := time.AfterFunc(c.opts.SavedAfter, c.serveSaved)
	defer fallback.Stop()
	for failures := 0; ; {
		err := c.Sync(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if failures++; err == nil {
			failures = 0
		}
		wait := c.pause(failures)
		now := time.Now()
		if at := c.rules.Load().next(now); !at.IsZero() {
			wait = min(wait, at.Sub(now)) // blocks of former rules leave then
		}
		if err != nil {
			c.log.Error("sync failed", "err", err, "ready", c.View().Ready,
				"next", wait.Round(time.Millisecond))
		}
		if !c.await(ctx, wait) {
			return nil
		}
	}
}

// await waits until the next sync is due, and applies the ownership of blocks meanwhile. It returns
// false if ctx ends.
func (c *Catalog) await(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-c.again:
			return true
		case <-timer.C:
			return true
		case <-c.reassigned:
			c.reassign(ctx)
		}
	}
}

// Rules returns the relabel rules in use. The caller must not change them.
func (c *Catalog) Rules() []*relabel.Config { return c.rules.Load().Rules }

// Reselect replaces Options.Relabel and makes Run sync at once, which publishes the blocks that the
// new rules select. Invalid rules are an error and are not used. Blocks that the rules exclude
// leave the view even if that sync is incomplete, because the rules do not depend on the bucket.
// Options.HashmodPatience delays that for some blocks. Calls must not overlap.
func (c *Catalog) Reselect(rules []*relabel.Config) error {
	if err := checkRelabel(rules, nil); err != nil {
		return err
	}
	c.changeRules(rules)
	c.syncAgain()
	return nil
}

// syncAgain makes Run sync at once.
func (c *Catalog) syncAgain() {
	select {
	case c.again <- struct{}{}:
	default: // a sync is pending
	}
}

// pause returns how long to wait after the given number of failed syncs in a row.
func (c *Catalog) pause(failures int) time.Duration {
	if failures == 0 {
		return spread(c.opts.Interval, 0.1)
	}
	longest := c.opts.Interval
	if !c.View().Ready {
		longest = min(longest, 30*time.Second)
	}
	wait := spread(min(longest, time.Second<<min(failures-1, 20)), 0.25)
	if pending := c.Status().Pending; !pending.IsZero() {
		// The next listing decides about the one in doubt.
		wait = min(wait, max(time.Until(pending), time.Second))
	}
	return wait
}

// spread changes d randomly by at most the given fraction of it.
func spread(d time.Duration, fraction float64) time.Duration {
	return d + time.Duration((2*rand.Float64()-1)*fraction*float64(d))
}

// Tombstone records that an object of a block is missing in the bucket. The block leaves the view
// at once if another block there has all its sources. Otherwise it stays until a sync or refresh
// has read its meta.json again and looked for its replacement: without the block, answers would be
// wrong and look right; with it, a query that needs it fails or waits for Refresh. Tombstone has no
// effect if the block is not in the view.
func (c *Catalog) Tombstone(id ulid.ULID) {
	defer c.notify()
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.view.Load()
	if old.ByID(id) == nil {
		return
	}
	if _, known := c.tombstones[id]; !known {
		c.metrics.tombstones.Inc()
		c.log.Warn("object of a block is missing", "block", id)
	}
	now := time.Now()
	c.tombstones[id] = now
	blocks := withoutReplaced(old.Blocks, id)
	if len(blocks) == len(old.Blocks) {
		c.lastLoss = now
	}
	c.setView(old, blocks, old.Ready, old.FromDisk)
}

// withoutReplaced returns blocks without the given one, if another of them replaces it.
func withoutReplaced(blocks []*Block, id ulid.ULID) []*Block {
	i := slices.IndexFunc(blocks, func(b *Block) bool { return b.ID == id })
	if i < 0 {
		return blocks
	}
	replaces := func(o *Block) bool { return o.ID != id && o.Replaces(blocks[i]) }
	if !slices.ContainsFunc(blocks, replaces) {
		return blocks
	}
	return slices.Concat(blocks[:i], blocks[i+1:])
}

// tombstoned returns a copy of the tombstones.
func (c *Catalog) tombstoned() map[ulid.ULID]time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.tombstones)
}

// publish replaces the view by blocks, except for blocks with tombstones that others among them
// replace. It removes the tombstones in lifted, which were set before the listing that found these
// blocks, unless they were set again since.
func (c *Catalog) publish(
	blocks []*Block, ready, fromDisk bool, lifted map[ulid.ULID]time.Time,
) *View {
	defer c.notify()
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, at := range lifted {
		if c.tombstones[id].Equal(at) {
			delete(c.tombstones, id)
		}
	}
	for id := range c.tombstones {
		blocks = withoutReplaced(blocks, id)
	}
	return c.setView(c.view.Load(), blocks, ready, fromDisk)
}

// setView replaces the view unless nothing changes. mu must be held.
func (c *Catalog) setView(old *View, blocks []*Block, ready, fromDisk bool) *View {
	c.metrics.tombstoned.Set(float64(len(c.tombstones)))
	v := NewView(c.redescribed(blocks), ready)
	v.FromDisk = fromDisk
	if v.same(old) {
		return old
	}
	c.view.Store(v)
	c.metrics.setView(v)
	c.changes = append(c.changes, change{old, v})
	return v
}

// change is one change of the view.
type change struct{ old, new *View }

// notify calls OnChange for the pending changes, in order and one at a time. If another goroutine
// is already notifying, it returns and that goroutine makes the calls. mu must not be held.
func (c *Catalog) notify() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.notifying {
		return
	}
	c.notifying = true
	defer func() { c.notifying = false }()
	for len(c.changes) > 0 {
		ch := c.changes[0]
		c.changes = c.changes[1:]
		func() {
			c.mu.Unlock()
			defer c.mu.Lock()
			// A panic of OnChange does not undo the change, and must not stop the caller.
			_ = c.panics.Do(func() error {
				c.opts.OnChange(ch.old, ch.new)
				return nil
			})
		}()
	}
}

// loadSaved loads the catalog that an earlier process saved.
func (c *Catalog) loadSaved() {
	s, err := c.local.saved()
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	switch {
	case errors.Is(err, sealed.ErrUnread):
		c.diskFailed("cannot read the saved catalog, starting without it", err)
		return
	case err != nil:
		c.metrics.damagedCopies.Inc()
		c.noteDamage(err)
		c.log.Warn("saved catalog does not verify, starting without it", "err", err)
		return
	}
	now := time.Now()
	age := now.Sub(s.At)
	recent := age >= 0 && age < savedMarksFor
	c.saved = make(map[ulid.ULID]savedBlock, len(s.Blocks))
	missing := 0
	read, done := c.local.metas(context.Background())
	defer done()
	retain := retention{limit: c.opts.DocumentBytes}
	for _, b := range s.Blocks {
		b.Checked = b.Checked && recent
		c.saved[b.ID] = b
		m, err := read(b.ID)
		if err != nil {
			if missing++; !errors.Is(err, fs.ErrNotExist) {
				c.damagedCopy(b.ID, err)
			}
			continue
		}
		c.records[b.ID] = c.newRecord(m)
		retain.add(retained{m.bytes, b.ID.String(), func(error) { // the first sync logs why
			delete(c.records, b.ID)
			missing++
		}})
	}
	states := stateCounts{} // unused: the first sync exports its own
	blocks, _ := c.selectByState(
		c.selectByMeta(sortedRecords(c.records), now, c.ownership(), states), nil, now, states,
	)
	c.fallback = append([]*Block{}, blocks...) // not nil, even if it is empty
	log := c.log.Info
	if missing > 0 {
		log = c.log.Warn // without the bucket, answers would lack these blocks
	}
	log("loaded the catalog of an earlier process", "saved", s.At, "blocks", len(s.Blocks),
		"usable", len(blocks), "unreadable", missing)
}

// newRecord returns the record of a new block, with the state of its mark on disk.
func (c *Catalog) newRecord(m *meta) *record {
	r := &record{meta: m}
	if s, ok := c.saved[m.block.ID]; ok {
		r.metaModified = s.MetaModified
		r.mark = mark{
			known:        s.Checked,
			marked:       s.Marked,
			deletionTime: s.DeletionTime,
			modified:     s.MarkModified,
		}
	}
	return r
}

// serveSaved publishes the blocks that New found on disk, if the catalog is not ready yet.
func (c *Catalog) serveSaved() {
	if c.fallback == nil || c.View().Ready {
		return
	}
	defer c.notify()
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.view.Load()
	if old.Ready {
		return
	}
	blocks := c.selected(c.fallback, c.ownership()) // the rules may have changed since New
	c.log.Warn("bucket was not read yet, serving the blocks of an earlier process",
		"blocks", len(blocks))
	c.setView(old, blocks, true, true)
}

// Status is the result of the last sync or refresh.
type Status struct {
	// At is when it began, zero before the first. LastComplete is when the last complete one began.
	At, LastComplete time.Time
	// Err is why it was incomplete, joined with the error of the Parquet bucket; nil for neither.
	Err error
	// Pending is when a listing that lacks more than half of the blocks is believed, zero if none
	// is in doubt.
	Pending time.Time
	// Listed is the number of listed blocks. States has the number of blocks by state, with the
	// keys of thanos_blocks_meta_synced.
	Listed int
	States map[string]int
	// Broken are the blocks whose meta.json is missing or cannot be used.
	Broken []BrokenBlock
	// Excluded are the blocks that are left out for another reason, at most 20,000.
	Excluded []ExcludedBlock
}

// ExcludedBlock is a block of the bucket that is not served, though its meta.json is valid.
type ExcludedBlock struct {
	// Block is what meta.json says. It must not be modified.
	Block *Block
	State string
	// By is the block that replaces it, zero if none does.
	By ulid.ULID
}

// BrokenBlock is a block of the bucket that cannot be served.
type BrokenBlock struct {
	ID    ulid.ULID
	State string
	Err   error
	// Next is the earliest time at which its meta.json is read again.
	Next time.Time
}

// Status returns the result of the last sync or refresh. Its maps and slices must not be modified.
func (c *Catalog) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// refreshed is the result of one refresh.
type refreshed struct {
	began time.Time
	err   error
}

// Refresh lists the root of the bucket and reads the meta.json of blocks that the catalog does not
// know. Queries call it when they find an object missing.
//
// Concurrent calls share one refresh, and calls within Options.RefreshEvery after its begin get its
// result. If a block was lost since that begin and nothing known replaces it, they wait for the
// next refresh instead. A refresh continues after its callers have left, because queries with short
// deadlines would otherwise never see the end of a slow one.
func (c *Catalog) Refresh(ctx context.Context) error {
	c.mu.Lock()
	loss := c.lastLoss
	c.mu.Unlock()
	for {
		r, _, err := c.refreshes.Do(ctx, struct{}{}, c.refresh)
		if err != nil {
			return err
		}
		if !r.began.Before(loss) {
			return r.err
		}
		next := time.NewTimer(time.Until(r.began.Add(c.opts.RefreshEvery)))
		select {
		case <-next.C:
		case <-ctx.Done():
			next.Stop()
			return ctx.Err()
		case <-c.closing.Done():
			next.Stop()
		}
	}
}

// refresh does the work of Refresh, or returns the last result if that is recent enough. It ends
// with the catalog and not with a caller. INVARIANT: one call runs at a time, which owns
// lastRefresh.
func (c *Catalog) refresh(context.Context) (refreshed, error) {
	c.flightMu.Lock()
	closed := c.closing.Err() != nil
	if !closed {
		c.flights.Add(1)
		defer c.flights.Done()
	}
	c.flightMu.Unlock()
	now := time.Now()
	switch {
	case closed:
		return refreshed{}, errors.New("refresh: the catalog is closed")
	case now.Sub(c.lastRefresh.began) < c.opts.RefreshEvery:
		return c.lastRefresh, nil
	}
	ctx, cancel := context.WithTimeout(c.closing, c.opts.StallTimeout)
	defer cancel()
	c.metrics.refreshes.Inc()
	found, err := c.sync(ctx, true)
	if err != nil {
		err = fmt.Errorf("refresh: %w", err)
		c.log.Warn("refresh failed", "err", err)
	}
	c.lastRefresh = refreshed{began: now, err: err}
	// Requests do not wait for the disk.
	c.flights.Go(func() {
		_ = c.panics.Do(func() error {
			c.save(found)
			return nil
		})
	})
	return c.lastRefresh, nil
}
