package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"larder/store/block"
	"larder/store/storepb"
)

// sources starts the series streams of plans and reads the first series of each, concurrently. The
// caller closes the streams, on an error too.
func (s *Server) sources(
	ctx context.Context, r *request, q *seriesQuery, plans []*block.Plan,
) ([]*source, error) {
	sources := make([]*source, len(plans))
	for i, p := range plans {
		opts := block.StreamOptions{
			MinTime: q.minT, MaxTime: q.maxT,
			SkipChunks: q.req.SkipChunks,
			RunBytes:   streamBytes(len(plans)),
			Account:    &r.seriesPages,
			OnSeries:   func(n int) error { return r.series.Reserve(uint64(n)) },
			OnChunks:   func(n int) error { return r.chunks.Reserve(uint64(n)) },
			Reserver:   r,
		}
		if m := q.req.ShardInfo.Matcher(); m != nil {
			opts.Keep = m.Matches
		}
		sources[i] = &source{
			stream: p.Stream(ctx, opts),
			chunks: p.Block().ChunkReader(&r.chunkPages, r),
		}
	}
	g := errgroup.Group{}
	g.SetLimit(blockConcurrency)
	for _, src := range sources {
		g.Go(contained(src.next))
	}
	return sources, g.Wait()
}

// sendSeries merges the series of plans and sends them window by window. While it encodes and sends
// one window, the chunks of the next one are fetched.
func (s *Server) sendSeries(
	r *request, q *seriesQuery, plans []*block.Plan, w *storepb.FrameWriter,
) (err error) {
	windowBytes := s.windowBytes(q, plans)
	frames := q.frameBytes(plans, guessedLabels)
	if err := r.settle(planBytes(plans) + windowBytes + frames); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.ctx)
	var sources []*source
	defer func() {
		cancel()
		for i, src := range sources {
			if src == nil {
				continue
			}
			src.stream.Close()
			if err == nil && src.stream.Stats().Matched == 0 {
				plans[i].NoteNoSeries()
			}
			r.noteSource(src)
		}
	}()
	err = r.stage(stageSeries, "bucket_store_first_series", func(context.Context) error {
		var err error
		sources, err = s.sources(ctx, r, q, plans)
		return err
	})
	if err != nil {
		return err
	}

	p := &pipeline{
		server: s, request: r, query: q, plans: plans, sources: sources, merge: newMerge(sources),
		granted: windowBytes, frames: frames,
		left: q.limit - w.Stats().Series, after: r.attempt.after(),
	}
	produced := make(chan *window)
	w.Expect(min(p.left, maxSeries(plans)))
	p.free = make(chan *window, 2)
	p.free <- &window{}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := contained(func() error { p.run(ctx, produced); return nil })(); err != nil {
			select {
			case produced <- &window{err: err}:
			case <-ctx.Done():
			}
		}
	})
	defer wg.Wait()
	defer cancel()

	enc := newEncoder(sources, q.req.Aggregates, s.noteBadChunk)
	for {
		var win *window
		select {
		case win = <-produced:
		case <-ctx.Done():
			return ctx.Err()
		}
		n, err := r.sendWindow(ctx, enc, win, w)
		if n > 0 {
			r.attempt.wrote(win.series[n-1].labels)
		}
		if err != nil {
			return err
		}
		switch {
		case errors.Is(win.err, errMergeDone):
			return nil
		case win.err != nil:
			return win.err
		}
		p.free <- win
	}
}

// sendWindow encodes and sends the series of win. It returns how many it wrote.
func (r *request) sendWindow(
	ctx context.Context, enc *encoder, win *window, w *storepb.FrameWriter,
) (int, error) {
	lo := 0
	for i := range win.series {
		ws := &win.series[i]
		chunks, err := enc.series(ctx, win, ws, win.chunks[lo:ws.chunkEnd])
		if err != nil {
			return i, err
		}
		lo = ws.chunkEnd
		before := w.ChunkBytes()
		if err := w.WriteSeries(ws.labels, chunks); err != nil {
			return i, err
		}
		if len(chunks) > 0 {
			r.sentSizes.add(w.ChunkBytes() - before)
		}
	}
	return len(win.series), nil
}

// pipeline is the producing side of a Series answer. It merges series into windows and fetches
// their chunks. The consumer puts each window that was sent back into free. There is one window at
// first. A second one, for look-ahead, is added once its bytes are reserved.
type pipeline struct {
	server  *Server
	request *request
	query   *seriesQuery
	plans   []*block.Plan
	sources []*source
	merge   *merge
	free    chan *window
	left    int64  // how many more series may be sent
	after   []byte // labels of the last series of earlier attempts; nil for none
	granted int64  // bytes reserved for each window
	frames  int64  // bytes reserved for frames
	excess  int64  // bytes also reserved for each window, because the largest exceeded granted
}

// run produces windows until the merge ends or fails. The last window has the reason in err.
func (p *pipeline) run(ctx context.Context, produced chan<- *window) {
	r := p.request
	var (
		windows = int64(1)
		target  = min(firstWindowBytes, max(p.granted, 1))
		density windowDensity
	)
	for {
		var win *window
		select {
		case win = <-p.free:
		case <-ctx.Done():
			return
		}
		r.Release(win.reset(len(p.sources)))
		win.grow(&density, target)
		err := contained(func() error {
			start := time.Now()
			if p.after != nil {
				if err := p.merge.skip(ctx, p.after); err != nil {
					return err
				}
				p.after = nil
			}
			p.left -= win.fill(ctx, p.merge, target,
				p.server.opts.ChunkPageBytes, p.left, p.query.req.SkipChunks)
			if err := p.admit(win, windows); err != nil {
				return err
			}
			if win.err == nil && p.left <= 0 {
				win.err = errMergeDone
			}
			r.addStage(stageSeries, time.Since(start))
			start = time.Now()
			defer func() { r.addStage(stageChunks, time.Since(start)) }()
			return win.fetch(ctx, p.sources)
		})()
		if err != nil {
			// Send none of its series, because some chunks are missing.
			win.series, win.err = win.series[:0], err
		}
		last := win.err != nil
		density = win.density()
		select {
		case produced <- win:
		case <-ctx.Done():
			return
		}
		if last {
			return
		}
		if windows == 1 && r.TryReserve(p.granted+p.excess) {
			windows = 2
			p.free <- &window{}
		}
		// Reserve a larger window before filling it. Look-ahead never waits for memory.
		if target = min(2*target, maxWindowBytes); target > p.granted {
			if r.TryReserve(windows * (target - p.granted)) {
				p.granted = target
			} else {
				target = p.granted
			}
		}
	}
}

// admit reserves the bytes of a window beyond those granted. The last series of a window may exceed
// the grant, by much if it has very many chunks. It also reserves larger frames for series whose
// labels are longer than estimated.
func (p *pipeline) admit(win *window, windows int64) error {
	if win.longest > guessedLabels {
		// The attempt keeps a copy of the last labels that were sent.
		if more := p.query.frameBytes(p.plans, win.longest) + win.longest - p.frames; more > 0 {
			if err := p.request.Reserve(more); err != nil {
				return fmt.Errorf("reserve frames for series with %d bytes of labels: %w",
					win.longest, err)
			}
			p.frames += more
		}
	}
	over := win.bytes - p.granted
	if over <= max(p.excess, windowSlack) {
		return nil
	}
	if err := p.request.Reserve(windows * (over - p.excess)); err != nil {
		return fmt.Errorf("reserve a window of %d bytes of chunks: %w", win.bytes, err)
	}
	p.excess = over
	return nil
}
