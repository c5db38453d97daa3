package warm

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/internal/sealed"
	"larder/store/catalog"
)

// afterHandOver is the reason for the replay of blocks that another process has served.
const afterHandOver = "hand_over"

// handOver has the arguments of a TakeOver.
type handOver struct {
	blocks []*catalog.Block
	s      *successor
	fetch  func(ctx context.Context) ([]byte, error)
}

// TakeOver warms blocks that another process serves until they are warm here. fetch returns the
// Heat of that process. The blocks do not count as warm until their matcher sets were replayed and
// their hot pages read, or the bounds of the replay are used up. If fetch fails, they are warm with
// their headers.
//
// Call it before the ViewChanged whose view first has the blocks: that one begins, because only
// blocks of the view are read.
func (w *Warmer) TakeOver(
	blocks []*catalog.Block, fetch func(ctx context.Context) ([]byte, error),
) {
	s := &successor{}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	for _, b := range blocks {
		w.warming[b.ID] = s
	}
	w.handOvers = append(w.handOvers, handOver{blocks, s, fetch})
}

// tookOver ends the warming of blocks.
func (w *Warmer) tookOver(blocks []*catalog.Block, s *successor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range blocks {
		if w.warming[b.ID] == s { // not one that a compaction has begun
			delete(w.warming, b.ID)
		}
	}
}

func (w *Warmer) takeOver(
	blocks []*catalog.Block, s *successor, fetch func(ctx context.Context) ([]byte, error),
) {
	payload, err := fetch(w.ctx)
	if err == nil && len(payload) == 0 {
		return // the other process records nothing
	}
	var pages []filePages
	if err == nil {
		sets, handed, ok := decodeHeat(payload)
		if !ok {
			err = fmt.Errorf("%w: %w", sealed.ErrDamaged, errPayload)
		} else {
			w.opts.Recorder.merge(sets)
			pages = handed
		}
	}
	if err != nil {
		w.log.Warn("nothing from the former owner to warm blocks with", "blocks", len(blocks),
			"err", err)
		return
	}
	byID := make(map[ulid.ULID]*catalog.Block, len(blocks))
	for _, b := range blocks {
		byID[b.ID] = b
	}
	sets, used := w.opts.Recorder.hot(func(id ulid.ULID) bool { return byID[id] != nil })
	var tasks []task
	for _, set := range sets {
		tasks = append(tasks, task{byID[set.block], set.key, set.score})
	}
	reads := readsOf(pages, func(id ulid.ULID) *catalog.Block { return byID[id] }, false)
	if len(tasks)+len(reads) == 0 {
		return
	}
	byHeat(tasks)
	// Headers of unused blocks are not waited for. The limit does not include their builds, same as
	// after a compaction.
	for _, r := range reads {
		used[r.block.ID] = 0
	}
	if err := w.opts.Headers.Wait(w.ctx, slices.Collect(maps.Keys(used))); err != nil {
		w.metrics.skipped.WithLabelValues(afterHandOver, skippedFailed).Add(float64(len(tasks)))
		return
	}
	deadline := time.Now().Add(w.opts.MaxTime)
	w.mu.Lock()
	s.deadline = deadline
	w.mu.Unlock()
	ctx, cancel := context.WithDeadline(w.ctx, deadline)
	defer cancel()
	o := w.replay(ctx, afterHandOver, tasks, newBudget(w.opts.MaxBytes))
	w.report(afterHandOver, o, "blocks", len(blocks))
	w.readPages(ctx, afterHandOver, reads, newBudget(w.opts.MaxBytes))
}
