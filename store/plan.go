package store

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"

	"larder/store/block"
	"larder/store/catalog"
)

// chosen is a block that a request queries, with the matchers for its series: those that its
// external labels do not decide.
type chosen struct {
	meta     *catalog.Block
	matchers []*labels.Matcher
}

// chooseSeries chooses the blocks of a Series request: those of the attempt, if it has any.
// Otherwise the view chooses by resolution within each external label set.
func (r *request) chooseSeries(q *seriesQuery, view *catalog.View) []chosen {
	var out []chosen
	var blocks []*catalog.Block
	if q.minT > q.maxT {
		return nil
	}
	if r.attempt.blocks != nil {
		for _, b := range r.attempt.blocks {
			ms, _ := seriesMatchers(q.matchers, b.Labels)
			r.attempt.queried = append(r.attempt.queried, b)
			out = append(out, chosen{meta: b, matchers: ms})
		}
		return out
	}
	for _, set := range view.Sets {
		ms, ok := seriesMatchers(q.matchers, set.Labels)
		if !ok {
			continue
		}
		blocks = view.Choose(set, q.minT, q.maxT, q.req.MaxResolutionWindow, blocks[:0])
		for _, b := range blocks {
			if !blockMatches(b, q.blockMatchers) {
				continue
			}
			r.attempt.queried = append(r.attempt.queried, b)
			out = append(out, chosen{meta: b, matchers: ms})
		}
	}
	return out
}

// planSeries finds the postings of all chosen blocks concurrently. The caller closes the plans that
// it returns, on an error too.
func (s *Server) planSeries(r *request, q *seriesQuery, view *catalog.View) ([]*block.Plan, error) {
	blocks := r.chooseSeries(q, view)
	plans := make([]*block.Plan, len(blocks))
	repeated := r.attempt.repeated()
	find := func(ctx context.Context, times *blockTimes) error {
		// Settle releases what the workers do not need any more.
		widen := func(n int) int { n, _ = r.tryWorkers(n, workersBytes); return n }
		return concurrently(ctx, len(blocks), widen, func(ctx context.Context, i int) error {
			c := &blocks[i]
			if len(c.matchers) == 0 {
				// By the StoreAPI's contract, a request with matchers for external labels only gets
				// nothing.
				return nil
			}
			return r.timedBlock(times, stagePostings, c.meta.ID, func() error {
				plan, err := s.block(c.meta).Plan(ctx, c.matchers, block.PlanOptions{
					External: dropLabels(c.meta.Labels, q.without),
					Dropped:  q.without,
					Sets:     block.BuildSets,
					Repeated: repeated,
					MinTime:  q.minT, MaxTime: q.maxT,
					Account:  r.postingsAccount(c.meta),
					OnSeries: func(n int) error { return r.series.Reserve(uint64(n)) },
					Reserve:  r.reserveForPlan,
				})
				if err != nil {
					return fmt.Errorf("fetch postings for block %s: %w", c.meta.ID, err)
				}
				plans[i] = plan
				return nil
			})
		})
	}
	err := r.stage(stagePostings, "bucket_store_preload_all", "block_postings", find)
	if err == nil {
		r.record(q, blocks)
	}
	out := plans[:0]
	for _, p := range plans {
		if p == nil {
			continue
		}
		r.notePlan(p)
		if p.Postings() == 0 {
			r.emptyBlocks++
			p.Close()
			continue
		}
		out = append(out, p)
	}
	r.blocksQueried = len(blocks)
	return out, err
}

// record records for cache warming which blocks were queried with which matchers. Blocks of one
// external label set share their matchers.
func (r *request) record(q *seriesQuery, blocks []chosen) {
	rec := r.server.opts.Recorder
	if rec == nil {
		return
	}
	for from := 0; from < len(blocks); {
		ms := blocks[from].matchers
		to := from + 1
		for to < len(blocks) && len(ms) > 0 && len(blocks[to].matchers) == len(ms) &&
			&blocks[to].matchers[0] == &ms[0] {
			to++
		}
		if len(ms) > 0 {
			// INVARIANT: blocks and queried have the same order.
			rec.Note(r.attempt.queried[from:to], ms, q.without)
		}
		from = to
	}
}
