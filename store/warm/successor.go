package warm

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/store/catalog"
)

// ViewChanged must be called after every change of the catalog's view, after the builds of new
// headers were requested. It starts to warm each new block that replaces blocks with hot sets, and
// those that TakeOver was called for.
func (w *Warmer) ViewChanged(old, cur *catalog.View) {
	replaced := replacedBlocks(old, cur)
	bySource := map[ulid.ULID][]hotSet{}
	if len(replaced) > 0 {
		sources := map[ulid.ULID]bool{}
		for _, blocks := range replaced {
			for _, o := range blocks {
				sources[o.ID] = true
			}
		}
		sets, _ := w.opts.Recorder.hot(func(id ulid.ULID) bool { return sources[id] })
		for _, s := range sets {
			bySource[s.block] = append(bySource[s.block], s)
		}
	}
	w.opts.Recorder.Forget(
		func(id ulid.ULID) bool { return old.ByID(id) == nil || cur.ByID(id) != nil },
	)
	b := newBudget(w.opts.MaxBytes)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.view = cur
	if w.closed {
		return
	}
	for _, h := range w.handOvers {
		w.wg.Go(func() {
			defer w.tookOver(h.blocks, h.s)
			w.contained(func() { w.takeOver(h.blocks, h.s, h.fetch) })
		})
	}
	w.handOvers = nil
	for n, blocks := range replaced {
		score := map[string]float64{}
		for _, o := range blocks {
			for _, s := range bySource[o.ID] {
				// A request uses several of the sources. The maximum of their scores is closer to
				// the number of requests than the sum.
				score[s.key] = max(score[s.key], s.score)
			}
		}
		if len(score) == 0 {
			continue
		}
		s := &successor{}
		w.warming[n.ID] = s
		w.wg.Go(func() { w.contained(func() { w.warmSuccessor(n, s, score, b) }) })
	}
}

// replacedBlocks returns the blocks of old that each new block of cur replaces.
func replacedBlocks(old, cur *catalog.View) map[*catalog.Block][]*catalog.Block {
	replaced := map[*catalog.Block][]*catalog.Block{}
	var byLabels map[uint64][]*catalog.Block // of old, by the hash of their external labels
	for _, n := range cur.Blocks {
		if old.ByID(n.ID) != nil {
			continue
		}
		if byLabels == nil {
			byLabels = map[uint64][]*catalog.Block{}
			for _, o := range old.Blocks {
				h := o.Labels.Hash()
				byLabels[h] = append(byLabels[h], o)
			}
		}
		for _, o := range byLabels[n.Labels.Hash()] {
			if n.Replaces(o) {
				replaced[n] = append(replaced[n], o)
			}
		}
	}
	return replaced
}

// warmSuccessor warms a block with the sets of the blocks that it replaces. Afterwards the block
// counts as warm, even if that failed.
func (w *Warmer) warmSuccessor(
	n *catalog.Block, s *successor, score map[string]float64, b *budget,
) {
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.warming, n.ID)
	}()
	tasks := w.inherit(n, score)
	byHeat(tasks)
	// The limit does not include the build of the header, because the block replaces no others
	// before that anyway.
	if err := w.opts.Headers.Wait(w.ctx, []ulid.ULID{n.ID}); err != nil ||
		!w.opts.Headers.Opened(n.ID) {
		w.metrics.skipped.WithLabelValues(afterCompaction, skippedFailed).Add(float64(len(tasks)))
		return
	}
	deadline := time.Now().Add(w.opts.MaxTime)
	w.mu.Lock()
	s.deadline = deadline
	w.mu.Unlock()
	ctx, cancel := context.WithDeadline(w.ctx, deadline)
	defer cancel()
	o := w.replay(ctx, afterCompaction, tasks, b)
	w.report(afterCompaction, o, "block", n.ID)
}

// Warmed reports whether a block may replace others: it is in the view, and is not being warmed or
// has reached the time limit. It never waits.
func (w *Warmer) Warmed(id ulid.ULID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.view == nil || w.view.ByID(id) == nil {
		return false
	}
	s := w.warming[id]
	return s == nil || !s.deadline.IsZero() && time.Now().After(s.deadline)
}
