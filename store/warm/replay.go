package warm

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/internal/pagecache"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/indexheader"
)

// The reasons for a replay, in metrics and logs.
const (
	afterRestart    = "restart"
	afterCompaction = "compaction"
)

// The ends of a replay, in logs.
const (
	endedDone   = "all done"
	endedTime   = "time limit"
	endedBytes  = "byte limit"
	endedClosed = "process stops"
)

// The reasons for not replaying a set, in metrics.
const (
	skippedGone   = "gone"   // its block is no longer served
	skippedFailed = "failed" // an error or a missing header, logged at debug level
	skippedBound  = "bound"  // the time or byte limit was reached
)

var (
	errGone = errors.New("its block is no longer served")
	// errNoHeader: a request would build the header at once and wait. A replay does not, and leaves
	// the header to background builds.
	errNoHeader = errors.New("its block's index header is not built yet")
)

// task is a set to be replayed for a block.
type task struct {
	block *catalog.Block
	key   string
	score float64
}

// byHeat sorts tasks by score, highest first. Among equal scores the newest block is first.
func byHeat(tasks []task) {
	slices.SortStableFunc(tasks, func(a, b task) int {
		return cmp.Or(
			cmp.Compare(b.score, a.score), cmp.Compare(b.block.MaxTime, a.block.MaxTime),
			a.block.ID.Compare(b.block.ID), cmp.Compare(a.key, b.key),
		)
	})
}

// outcome is the result of a replay.
type outcome struct {
	ended           string
	replayed, total int
	failed          int
	bytes           int64
	took            time.Duration
}

// replay runs tasks in their order until all are done, ctx ends, or b is spent.
func (w *Warmer) replay(ctx context.Context, purpose string, tasks []task, b *budget) outcome {
	start := time.Now()
	running := w.metrics.running.WithLabelValues(purpose)
	running.Inc()
	defer running.Dec()
	var next, replayed, gone, failed, bytes atomic.Int64
	var wg sync.WaitGroup
	for range min(workers, len(tasks)) {
		wg.Go(func() {
			for ctx.Err() == nil && !b.spent() {
				i := int(next.Add(1)) - 1
				if i >= len(tasks) {
					return
				}
				err := w.panics.Do(func() error { return w.one(ctx, tasks[i], b, &bytes) })
				switch {
				case err == nil:
					replayed.Add(1)
					w.metrics.replayed.WithLabelValues(purpose).Inc()
				case errors.Is(err, errGone):
					gone.Add(1)
					w.metrics.skipped.WithLabelValues(purpose, skippedGone).Inc()
				case ctx.Err() == nil && !errors.Is(err, errSpent):
					failed.Add(1)
					w.metrics.skipped.WithLabelValues(purpose, skippedFailed).Inc()
					w.log.Debug("replay of a matcher set failed", "block", tasks[i].block.ID,
						"err", err)
				}
			}
		})
	}
	wg.Wait()
	o := outcome{
		ended: endedDone, total: len(tasks), replayed: int(replayed.Load()),
		failed: int(failed.Load()),
		bytes:  bytes.Load(), took: time.Since(start),
	}
	if left := o.total - o.replayed - o.failed - int(gone.Load()); left > 0 {
		w.metrics.skipped.WithLabelValues(purpose, skippedBound).Add(float64(left))
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			o.ended = endedTime
		case ctx.Err() != nil:
			o.ended = endedClosed
		default:
			o.ended = endedBytes
		}
	}
	w.metrics.bytes.WithLabelValues(purpose).Add(float64(o.bytes))
	w.metrics.seconds.WithLabelValues(purpose).Add(o.took.Seconds())
	return o
}

// one replays one set.
func (w *Warmer) one(ctx context.Context, t task, b *budget, bytes *atomic.Int64) error {
	ms, without, err := parseKey(t.key)
	if err != nil {
		return err
	}
	return w.patiently(ctx, t.block, b, bytes,
		func(now *catalog.Block, acct *pagecache.Account) (finished bool, err error) {
			return w.opts.Store.Warm(ctx, now, ms, without, acct)
		})
}

// maxReplaced is how often the version of a block may change during one read. Unknown sizes of its
// files change it once each: of its index and of its chunk files.
const maxReplaced = 4

// patiently runs f, which reads the version of a block that is served now, while no request waits.
// If an attempt yields to requests, or another version replaces the block, it tries again. bytes
// gets what was read from the bucket.
func (w *Warmer) patiently(
	ctx context.Context, block *catalog.Block, b *budget, bytes *atomic.Int64,
	f func(now *catalog.Block, acct *pagecache.Account) (finished bool, err error),
) error {
	replaced := 0
	for wait := retryAfter; ; wait = min(2*wait, maxRetryAfter) {
		if err := w.idle(ctx); err != nil {
			return err
		}
		now := w.served(block.ID)
		switch {
		case now == nil:
			return errGone
		case !w.opts.Headers.Opened(block.ID):
			return errNoHeader
		}
		select {
		case w.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		a := b.attempt()
		finished, err := func() (bool, error) {
			defer func() { <-w.slots }()
			return f(now, &a.acct)
		}()
		bytes.Add(a.end(err == nil && !finished))
		if errors.Is(err, indexheader.ErrReplaced) && replaced < maxReplaced {
			replaced++
			err = nil
		}
		if err != nil || finished {
			return err
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// idle waits while requests wait.
func (w *Warmer) idle(ctx context.Context) error {
	for w.opts.Store.Busy() {
		if err := pause(ctx, retryAfter); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// openHeaders opens the headers of blocks in their order, and returns how many it opened.
func (w *Warmer) openHeaders(ctx context.Context, blocks []*catalog.Block) int {
	var next, opened atomic.Int64
	var wg sync.WaitGroup
	for range min(workers, len(blocks)) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(blocks) || w.idle(ctx) != nil {
					return
				}
				w.contained(func() {
					if w.openHeader(ctx, blocks[i]) {
						opened.Add(1)
					}
				})
			}
		})
	}
	wg.Wait()
	return int(opened.Load())
}

// openHeader opens a header once it is built in the background, where the build does not compete
// with builds that requests wait for.
func (w *Warmer) openHeader(ctx context.Context, b *catalog.Block) bool {
	if w.opts.Headers.Wait(ctx, []ulid.ULID{b.ID}) != nil || !w.opts.Headers.Opened(b.ID) {
		return false
	}
	_, release, err := w.opts.Headers.Acquire(ctx, block.Source(b))
	if err != nil {
		return false
	}
	release()
	return true
}
