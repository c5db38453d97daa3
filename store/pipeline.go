package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"larder/internal/bucket/slots"
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
		entries, chunks := r.readAccounts(p.Block().Meta())
		opts := block.StreamOptions{
			MinTime: q.minT, MaxTime: q.maxT,
			SkipChunks: q.req.SkipChunks,
			RunBytes:   streamBytes(len(plans)),
			Account:    entries,
			OnSeries:   func(n int) error { return r.series.Reserve(uint64(n)) },
			OnChunks:   func(n int) error { return r.chunks.Reserve(uint64(n)) },
			Reserver:   r,
		}
		if m := q.req.ShardInfo.Matcher(); m != nil {
			opts.Keep = m.Matches
		}
		sources[i] = &source{
			stream: p.Stream(ctx, opts),
			chunks: p.Block().ChunkReader(chunks, r),
		}
	}
	extra := int64(0)
	widen := func(n int) int {
		n, extra = r.tryWorkers(n, func(n int) int64 {
			return workersBytes(n) +
				passingBytes(plans, q.req.SkipChunks, minBlocks, minBlocks+n)
		})
		return n
	}
	ctx, times, end := r.startSpan(
		ctx, stageSeries, "bucket_store_first_series", "block_first_series")
	defer end()
	err := concurrently(ctx, len(sources), widen, func(_ context.Context, i int) error {
		return r.timedBlock(times, stageSeries, plans[i].Block().Meta().ID, sources[i].next)
	})
	r.turn.Release(extra)
	return sources, err
}

// sendSeries merges the series of plans and sends them window by window. While it encodes and sends
// one window, the chunks of the next ones are fetched.
func (s *Server) sendSeries(
	r *request, q *seriesQuery, plans []*block.Plan, w *storepb.FrameWriter,
) (err error) {
	size := s.answerSize(q, plans)
	frames := q.frameBytes(plans, guessedLabels)
	need := planBytes(plans, q.req.SkipChunks) + size.first() + frames
	if err := r.settle(need); err != nil {
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
	// The reads of streams are below this span, whichever window needs them. It ends with the
	// merge, or with an error.
	ctx, series := r.span(ctx, stageSeries, "bucket_store_series")
	defer series.End()
	if sources, err = s.sources(ctx, r, q, plans); err != nil {
		return err
	}

	p := &pipeline{
		server: s, request: r, query: q, plans: plans, sources: sources, merge: newMerge(sources),
		size: size, frames: frames, eager: !s.opts.OneAhead,
		left: q.limit - w.Stats().Series, after: r.attempt.after(),
		free: make(chan *window, s.opts.Windows), starved: make(chan struct{}, 1),
	}
	// One more than there are windows, for the error of a panic.
	produced := make(chan *window, s.opts.Windows+1)
	w.Expect(min(p.left, maxSeries(plans)))
	defer p.running.Wait()
	defer cancel()
	p.running.Go(func() {
		defer series.End()
		if err := contained(func() error { p.run(ctx, produced); return nil })(); err != nil {
			win := newWindow(0)
			win.err = err
			win.fetched <- struct{}{}
			produced <- win
		}
	})

	enc := newEncoder(sources, q.req.Aggregates, s.noteBadChunk)
	for {
		win, err := p.next(ctx, produced)
		if err != nil {
			return err
		}
		n := 0
		err = r.encode(func() (err error) {
			n, err = r.sendWindow(ctx, enc, win, w)
			return err
		})
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

// encode runs f, which encodes and sends. The time of f belongs to the stage send, but for the time
// in which the client did not read.
func (r *request) encode(f func() error) error {
	start, held := time.Now(), r.stages[stageFlowControl].Load()
	err := f()
	end := time.Now()
	d := end.Sub(start) - time.Duration(r.stages[stageFlowControl].Load()-held)
	r.addStage(stageSend, max(d, 0))
	r.late(r.ctx, "bucket_store_send_window", start, end, stageSend)
	return err
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

// pipeline is the producing side of a Series answer. It merges series into windows. Each window has
// a goroutine that fetches its chunks. The consumer puts each window that was sent back into free.
// There is one window at first. The others are for look-ahead, and are added once their bytes are
// reserved: the second one at once, more while the consumer waits for the bucket.
type pipeline struct {
	server  *Server
	request *request
	query   *seriesQuery
	plans   []*block.Plan
	sources []*source
	merge   *merge
	size    answerSize
	running sync.WaitGroup // the producer and the windows' goroutines
	free    chan *window
	starved chan struct{} // gets a value while the consumer waits for chunks

	// Used by the producer only.
	windows int    // how many there are
	eager   bool   // whether more than one window may be fetched ahead
	target  int64  // bytes of the next window
	over    int64  // by how much the largest window exceeded its target
	left    int64  // how many more series may be sent
	after   []byte // labels of the last series of earlier attempts; nil for none
	frames  int64  // bytes reserved for frames

	// Used by the consumer only.
	fetchedUntil time.Time // the end of the fetches that are counted in the stage
	patience     *time.Timer
}

// run produces windows until the merge ends or fails. The last window has the reason in err.
func (p *pipeline) run(ctx context.Context, produced chan<- *window) {
	var density windowDensity
	p.free <- p.add(ctx, p.size.first())
	p.target = min(firstWindowBytes, max(p.size.first(), 1))
	for first := true; ; first = false {
		start := time.Now()
		win := p.take(ctx)
		if win == nil {
			return
		}
		p.request.late(ctx, "bucket_store_await_window", start, time.Now())
		p.request.Release(win.reset(len(p.sources)))
		target := p.extend(win, p.target)
		win.grow(&density, target)
		_, _, end := p.request.startSpan(ctx, stageSeries, "bucket_store_merge_window", "")
		err := contained(func() error { return p.fill(ctx, win, target, first) })()
		end()
		if err != nil {
			// Send none of its series, because some chunks are missing.
			win.series, win.err = win.series[:0], err
		}
		last := win.err != nil
		density = win.density()
		win.ctx, win.need = slots.LookAhead(ctx)
		win.filled <- struct{}{}
		produced <- win // INVARIANT: it has a place for each window
		if last {
			return
		}
		p.target = min(2*p.target, maxWindowBytes)
	}
}

// fill fills a window with target bytes. The first one gets more if its chunks are not in memory.
func (p *pipeline) fill(ctx context.Context, win *window, target int64, first bool) error {
	if p.after != nil {
		if err := p.merge.skip(ctx, p.after); err != nil {
			return err
		}
		p.after = nil
	}
	skipChunks, pages := p.query.req.SkipChunks, p.server.opts.ChunkPageBytes
	p.left -= win.fill(ctx, p.merge, target, pages, p.left, skipChunks)
	if first && win.err == nil && p.left > 0 && p.eager && !win.mostlyLabels() &&
		!win.inMemory(p.sources) {
		p.size.measure(win, maxSeries(p.plans), pages)
		p.target = max(p.target, min(p.size.cold(), maxWindowBytes))
		target = p.extend(win, p.size.cold())
		win.growBy(p.sources, target)
		p.left -= win.fill(ctx, p.merge, target, pages, p.left, skipChunks)
		if errors.Is(win.err, errMergeDone) || p.left <= 0 {
			win.setLast(p.sources, p.server.opts.Blocks.Costs.Model())
		}
	}
	if win.err == nil && p.left <= 0 {
		win.err = errMergeDone
	}
	if win.mostlyLabels() {
		p.eager = false
		if win.labels > firstWindowBytes/2 {
			win.bytes += min(win.labels, segmentLabels)
		}
	}
	p.over = max(p.over, win.bytes-target)
	if err := p.admit(ctx, win); err != nil {
		return err
	}
	if surplus := win.reserved - max(win.bytes, p.size.first()); win.err != nil && surplus > 0 {
		p.request.turn.Release(surplus)
		win.reserved -= surplus
	}
	return nil
}

// fetch fetches the chunks of a window each time that it is filled, until its channel is closed or
// ctx ends.
func (p *pipeline) fetch(ctx context.Context, win *window) {
	extra := int64(0)
	widen := func(n int) int {
		n, extra = p.request.tryWorkers(n, workersBytes)
		return n
	}
	fetch := contained(func() error {
		// Its spans are not below that of the streams, because windows are fetched beside them.
		ctx := trace.ContextWithSpan(win.ctx, trace.SpanFromContext(p.request.ctx))
		ctx, span := p.request.span(ctx, stageChunks, "bucket_store_fetch_window")
		times := p.request.blockTimes(ctx, stageChunks, "block_chunks")
		defer func() {
			win.end = time.Now()
			times.end(ctx)
			span.End(trace.WithTimestamp(win.end))
		}()
		return win.fetch(ctx, p.request, p.sources, widen, times)
	})
	for {
		select {
		case _, ok := <-win.filled:
			if !ok {
				return
			}
		case <-ctx.Done():
			return
		}
		win.began = time.Now()
		win.end = win.began
		if len(win.series) > 0 {
			if err := fetch(); err != nil {
				win.series, win.err = win.series[:0], err
			}
			p.request.turn.Release(extra)
			extra = 0
		}
		win.fetched <- struct{}{}
	}
}

// next returns the next window, with its chunks. It tells the producer if it waits for them.
func (p *pipeline) next(ctx context.Context, produced <-chan *window) (win *window, err error) {
	select {
	case win = <-produced:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	win.need()
	select {
	case <-win.fetched:
	default:
		if err := p.wait(ctx, win); err != nil {
			return nil, err
		}
	}
	// Fetches overlap. They begin in the order of the windows.
	if p.fetchedUntil.After(win.began) {
		win.began = p.fetchedUntil
	}
	if d := win.end.Sub(win.began); d > 0 {
		p.request.addStage(stageChunks, d)
		p.fetchedUntil = win.end
	}
	return win, nil
}

// wait waits for the chunks of a window. It tells the producer if the bucket keeps it waiting.
func (p *pipeline) wait(ctx context.Context, win *window) error {
	p.request.progress.now.Store(int32(stageChunks))
	if p.patience == nil {
		p.patience = time.NewTimer(patience)
	} else {
		p.patience.Reset(patience)
	}
	defer p.patience.Stop()
	for {
		select {
		case <-win.fetched:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-p.patience.C:
			if p.request.chunkPages.Missed() {
				select {
				case p.starved <- struct{}{}:
				default:
				}
			}
			p.patience.Reset(patience)
		}
	}
}

// take returns a window that is free, or another one. It returns nil if ctx has ended.
func (p *pipeline) take(ctx context.Context) *window {
	select {
	case win := <-p.free:
		return win
	default:
	}
	if p.windows == 1 {
		if win := p.another(ctx); win != nil {
			return win
		}
	}
	for {
		select {
		case win := <-p.free:
			return win
		case <-p.starved:
			if !p.eager {
				continue
			}
			if p.size.chunks <= maxWholeAnswer {
				p.target = max(p.target, p.size.cold()) // the rest of it
			}
			if win := p.another(ctx); win != nil {
				return win
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// another returns one more window, nil if it cannot have any. Look-ahead never waits for memory.
func (p *pipeline) another(ctx context.Context) *window {
	if p.windows == p.server.opts.Windows {
		return nil
	}
	for _, n := range [...]int64{max(p.target, p.size.first()), p.size.first()} {
		if n += p.over; p.request.TryReserve(n) {
			return p.add(ctx, n)
		}
	}
	return nil
}

// add adds a window for which n bytes are reserved.
func (p *pipeline) add(ctx context.Context, n int64) *window {
	win := newWindow(n)
	p.windows++
	p.running.Go(func() { p.fetch(ctx, win) })
	return win
}

// extend tries to reserve n bytes for a window, and what windows exceed their target by. It returns
// the target of the window: n, or less if fewer bytes are free.
func (p *pipeline) extend(win *window, n int64) int64 {
	for ; n > p.size.first(); n /= 2 {
		more := n + p.over - win.reserved
		if more <= 0 {
			break
		}
		if p.request.TryReserve(more) {
			win.reserved += more
			break
		}
	}
	return max(n, 1)
}

// admit reserves the bytes of a window beyond those reserved. The last series of a window may
// exceed its target, by much if it has very many chunks. It also reserves larger frames for series
// whose labels are longer than estimated.
func (p *pipeline) admit(ctx context.Context, win *window) error {
	if win.longest > guessedLabels {
		// The attempt keeps a copy of the last labels that were sent.
		if more := p.query.frameBytes(p.plans, win.longest) + win.longest - p.frames; more > 0 {
			if err := p.reserve(ctx, more); err != nil {
				return fmt.Errorf("reserve frames for series with %d bytes of labels: %w",
					win.longest, err)
			}
			p.frames += more
		}
	}
	over := win.bytes - win.reserved
	if over <= windowSlack {
		return nil
	}
	if err := p.reserve(ctx, over); err != nil {
		return fmt.Errorf("reserve a window of %d bytes of chunks: %w", win.bytes, err)
	}
	win.reserved += over
	return nil
}

// reserve reserves n more bytes. If they are not free, look-ahead ends: the other windows release
// theirs once they are sent.
func (p *pipeline) reserve(ctx context.Context, n int64) error {
	err := p.request.Reserve(n)
	for err != nil && p.windows > 1 {
		select {
		case win := <-p.free:
			p.windows--
			close(win.filled)
			p.request.Release(win.reset(len(p.sources)))
			p.request.turn.Release(win.reserved)
			err = p.request.Reserve(n)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}
