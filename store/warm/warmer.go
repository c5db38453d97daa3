package warm

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/localfs"
	"larder/internal/pagecache"
	"larder/internal/panics"
	"larder/internal/sealed"
	"larder/internal/telemetry"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/storepb"
)

const (
	// workers is the number of concurrent replays of sets in the process.
	workers = 2
	// maxHeaders is the number of headers opened after a start.
	maxHeaders = 512
	// retryAfter is the wait of a replay after it yielded to requests. It doubles up to
	// maxRetryAfter, because each attempt costs a plan.
	retryAfter    = 50 * time.Millisecond
	maxRetryAfter = 2 * time.Second
)

// Store executes replays. *store.Server implements it.
type Store interface {
	// Warm reads a block like a request with these matchers and without chunks. finished is false
	// if it yielded to requests before the end.
	Warm(
		ctx context.Context, b *catalog.Block, ms []*storepb.LabelMatcher, without []string,
		acct *pagecache.Account,
	) (finished bool, err error)
	// WarmPages reads pages of a file of a block: 0 is its index, the others are its chunk files.
	// finished: see Warm.
	WarmPages(
		ctx context.Context, b *catalog.Block, file int, spans []pagecache.Span,
		how pagecache.Warming, acct *pagecache.Account,
	) (finished bool, err error)
	// Busy reports whether requests wait.
	Busy() bool
}

// Headers opens index headers. *indexheader.Manager implements it.
type Headers interface {
	Opened(id ulid.ULID) bool
	Wait(ctx context.Context, ids []ulid.ULID) error
	Acquire(
		ctx context.Context, src indexheader.Source,
	) (h *indexheader.Header, release func(), err error)
}

// Options of a Warmer. Recorder, Store and Headers are required.
type Options struct {
	Recorder *Recorder
	Store    Store
	Headers  Headers
	// Index and Chunks are the caches whose hot pages Heat lists. nil: none.
	Index, Chunks Pages
	// HasDisk means that a disk below the memory of Index and Chunks outlives the process. After a
	// restart the pages that memory had are then read from it.
	HasDisk bool
	// Dir is the directory of the snapshot. Without one, nothing is saved and a start is cold.
	Dir localfs.Dir
	// LockDir is called before the snapshot is written. Its error counts as a failed write. nil: no
	// other process uses Dir.
	LockDir func() error
	// MaxTime bounds a replay; in a hand-over, the replay and the reads of pages together. Default
	// 2 minutes. A longer time warms more after a start, and keeps replaced blocks longer.
	MaxTime time.Duration
	// MaxBytes bounds the index bytes that a replay reads, and, apart from these, the bytes of the
	// hot pages of a hand-over or a restart. Default 128 MiB. If it exceeds the cache of index
	// pages, a replay evicts what it has just warmed.
	MaxBytes int64
	// SaveEvery is the interval of snapshots, which are written only after a change. Default 3
	// minutes. A process that is killed loses the requests since the last one.
	SaveEvery time.Duration

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Warmer writes snapshots and replays them. Its methods may be called from any goroutine.
type Warmer struct {
	opts    Options
	log     *slog.Logger
	metrics *metrics
	panics  *panics.Guard
	slots   chan struct{} // has an element for each running replay of a set
	started chan struct{} // closed when the replay after a start has ended

	ctx    context.Context // of replays after compactions
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // guards following; held for map operations only
	closed  bool
	view    *catalog.View            // the last view of ViewChanged, nil before the first
	warming map[ulid.ULID]*successor // of TakeOver, too
	// handOvers wait for the view that has their blocks.
	handOvers []handOver

	// saved is the recorder's count of changes at the last snapshot. Only Run uses it.
	saved uint64
	// pages are those that memory had before the restart. Only Run uses them.
	pages []filePages
	// restored is true once the replay after a start has ended by itself. Until then memory lacks
	// pages that the file of hot pages has, and the file is not replaced.
	restored atomic.Bool
}

// successor is a block that is warmed before the blocks that it replaces leave.
type successor struct {
	deadline time.Time // zero until its header is built
}

// New returns a Warmer. The caller must call Close.
func New(opts Options) *Warmer {
	if opts.MaxTime <= 0 {
		opts.MaxTime = 2 * time.Minute
	}
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = 128 << 20
	}
	if opts.SaveEvery <= 0 {
		opts.SaveEvery = 3 * time.Minute
	}
	if opts.LockDir == nil {
		opts.LockDir = func() error { return nil }
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	w := &Warmer{
		opts:    opts,
		log:     opts.Logger,
		slots:   make(chan struct{}, workers),
		started: make(chan struct{}),
		warming: map[ulid.ULID]*successor{},
	}
	w.metrics = newMetrics(opts.Recorder, opts.Registerer)
	w.panics = panics.New("warm", opts.Logger, opts.Registerer)
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// Close ends replays after compactions and waits for them. Run ends with its own context.
func (w *Warmer) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cancel()
	w.wg.Wait()
}

// known returns the last view, nil before the first.
func (w *Warmer) known() *catalog.View {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.view
}

// served returns the version of a block in the last view, nil if it is not there.
func (w *Warmer) served(id ulid.ULID) *catalog.Block {
	view := w.known()
	if view == nil {
		return nil
	}
	return view.ByID(id)
}

// Started is closed when Run has replayed the snapshot of an earlier process, or found that there
// is nothing to replay.
func (w *Warmer) Started() <-chan struct{} { return w.started }

// Run replays the snapshot of an earlier process. It writes snapshots until ctx ends, and a last
// one then. Call it only once, when the blocks are known.
func (w *Warmer) Run(ctx context.Context) {
	if !w.opts.Dir.IsZero() {
		w.contained(w.load)
	}
	var replaying sync.WaitGroup
	replaying.Go(func() {
		defer close(w.started)
		w.contained(func() { w.replaySnapshot(ctx) })
		w.restored.Store(ctx.Err() == nil)
	})
	defer replaying.Wait()
	if w.opts.Dir.IsZero() {
		return
	}
	t := time.NewTicker(w.opts.SaveEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			w.contained(w.save)
		case <-ctx.Done():
			w.contained(w.save)
			return
		}
	}
}

// contained runs f and contains its panic, which only leaves caches cold.
func (w *Warmer) contained(f func()) {
	_ = w.panics.Do(func() error {
		f()
		return nil
	})
}

// load merges the snapshot into the recorder.
func (w *Warmer) load() {
	saved, err := readSnapshot(w.opts.Dir)
	if err != nil {
		w.readFailed(err)
		return
	}
	w.opts.Recorder.merge(saved)
	if w.opts.HasDisk {
		w.pages, err = readHotPages(w.opts.Dir)
		w.readFailed(err)
	}
}

// readFailed counts and logs that a file could not be read, unless it does not exist.
func (w *Warmer) readFailed(err error) {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return
	}
	w.metrics.failures.WithLabelValues("read").Inc()
	if errors.Is(err, sealed.ErrDamaged) {
		w.metrics.corruptions.Mended(telemetry.CorruptLocal, 1)
	}
	w.log.Warn("ignoring the warm snapshot", "err", err)
}

// save writes a snapshot if the recorder has changed.
func (w *Warmer) save() {
	view := w.known()
	if view != nil && view.Ready && !view.FromDisk {
		w.opts.Recorder.Forget(func(id ulid.ULID) bool { return view.ByID(id) != nil })
	}
	if w.opts.Recorder.stats().changes == w.saved {
		return
	}
	payload, changes := w.opts.Recorder.encode(nil)
	err := w.opts.LockDir()
	if err == nil {
		err = writeSnapshot(w.opts.Dir, payload)
	}
	if err == nil && w.opts.HasDisk && view != nil && w.restored.Load() {
		err = writeHotPages(w.opts.Dir, w.heatOf(view))
	}
	if err != nil {
		w.metrics.failures.WithLabelValues("write").Inc()
		w.log.Warn("cannot write the warm snapshot", "err", err)
		return
	}
	w.saved = changes
	w.metrics.snapshotTime.SetToCurrentTime()
	w.metrics.snapshotBytes.Set(float64(len(payload)))
}

// replaySnapshot warms the blocks of the view with their recorded sets.
func (w *Warmer) replaySnapshot(ctx context.Context) {
	view := w.known()
	pages := w.pages
	w.pages = nil
	sets, used := w.opts.Recorder.hot(func(ulid.ULID) bool { return true })
	if view == nil || len(used) == 0 {
		return
	}
	tasks := w.tasksOf(view, sets, used)
	byHeat(tasks)
	var blocks []*catalog.Block
	for id := range used {
		if b := view.ByID(id); b != nil {
			blocks = append(blocks, b)
		}
	}
	slices.SortFunc(blocks, func(a, b *catalog.Block) int {
		return cmp.Or(cmp.Compare(used[b.ID], used[a.ID]), a.ID.Compare(b.ID))
	})
	blocks = blocks[:min(len(blocks), maxHeaders)]
	if len(blocks) == 0 {
		return
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, w.opts.MaxTime)
	defer cancel()
	w.log.Info("warming after a restart", "headers", len(blocks), "matcher_sets", len(tasks))
	// Headers get half of the time, so that a slow build does not prevent the replay of the sets of
	// all other blocks.
	opening, stop := context.WithTimeout(ctx, w.opts.MaxTime/2)
	headers := w.openHeaders(opening, blocks)
	stop()
	o := w.replay(ctx, afterRestart, tasks, newBudget(w.opts.MaxBytes))
	o.took = time.Since(start)
	w.report(afterRestart, o, "headers", headers)
	w.readPages(ctx, afterRestart, readsOf(pages, view.ByID, true), newBudget(w.opts.MaxBytes))
}

// tasksOf returns the tasks for sets on the blocks of a view. The sets of a block that a compaction
// has replaced become tasks of the block that lists it as a source; that block is added to used.
func (w *Warmer) tasksOf(
	view *catalog.View, sets []hotSet, used map[ulid.ULID]int64,
) (tasks []task) {
	type blockSet struct {
		id  ulid.ULID
		key string
	}
	own := map[blockSet]bool{}
	gone := map[ulid.ULID][]hotSet{}
	for _, s := range sets {
		if b := view.ByID(s.block); b != nil {
			tasks = append(tasks, task{b, s.key, s.score})
			own[blockSet{s.block, s.key}] = true
		} else {
			gone[s.block] = append(gone[s.block], s)
		}
	}
	if len(gone) == 0 {
		return tasks
	}
	found := map[ulid.ULID]bool{}
	for _, b := range view.Blocks {
		if b.Resolution != 0 {
			continue // requests for the raw sources did not use the downsampled blocks
		}
		score := map[string]float64{}
		for _, source := range b.Sources {
			for _, s := range gone[source] {
				found[source] = true
				used[b.ID] = max(used[b.ID], used[source])
				if !own[blockSet{b.ID, s.key}] {
					score[s.key] = max(score[s.key], s.score)
				}
			}
		}
		tasks = append(tasks, w.inherit(b, score)...)
	}
	for id, lost := range gone {
		if !found[id] {
			w.metrics.skipped.WithLabelValues(afterRestart, skippedGone).Add(float64(len(lost)))
		}
	}
	return tasks
}

// inherit records the sets of replaced blocks, with their scores, for block b, and returns them as
// tasks.
func (w *Warmer) inherit(b *catalog.Block, score map[string]float64) (tasks []task) {
	var sets []hotSet
	for key, hot := range score {
		tasks = append(tasks, task{b, key, hot})
		sets = append(sets, hotSet{b.ID, key, hot})
	}
	w.opts.Recorder.inherit(b.ID, sets)
	return tasks
}

// report logs the outcome of a replay.
func (w *Warmer) report(purpose string, o outcome, more ...any) {
	w.log.Info("warmed", append([]any{
		"after", purpose, "matcher_sets", o.replayed, "of", o.total, "failed", o.failed,
		"bytes", o.bytes, "took", o.took.Round(time.Millisecond), "ended", o.ended,
	}, more...)...)
}
