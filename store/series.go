package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"larder/store/admission"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/matcher"
	"larder/store/storepb"
)

const (
	// blockConcurrency is how many blocks of a request are worked on side by side.
	blockConcurrency = 32
	// maxRunBytes is how much index a stream reads at a time; many streams share runBytesPerRequest.
	minRunBytes        = 32 << 10
	maxRunBytes        = 1 << 20
	runBytesPerRequest = 8 << 20
	// maxReplans is how often a request is planned anew because a block left the bucket. Refreshes of the catalog are rare and see all that
	// happened before them: a request that needs more of them is one of a bucket that is being emptied.
	maxReplans = 5
	// maxReshapes is how often a request is planned again because a block was found irregular. Each
	// time at least one more is known. The blocks of a request are looked at side by side, and are
	// mostly found together.
	maxReshapes = 16
)

// seriesQuery is a Series request, checked.
type seriesQuery struct {
	req           *storepb.SeriesRequest
	minT, maxT    int64
	matchers      []*labels.Matcher
	blockMatchers []*labels.Matcher
	without       []string
	queryStats    bool
	hints         bool
	limit         int64
}

// parseSeries checks a request. The budget holds what it needs.
func (s *Server) parseSeries(
	req *storepb.SeriesRequest, budget *matcher.Budget,
) (*seriesQuery, error) {
	q := &seriesQuery{req: req, without: req.WithoutReplicaLabels, limit: math.MaxInt64}
	if req.Limit > 0 {
		q.limit = req.Limit
	}
	q.minT, q.maxT = s.clamp(req.MinTime, req.MaxTime)
	err := budget.ReserveMessage(
		req, req.Matchers, req.WithoutReplicaLabels, req.ShardInfo.GetLabels())
	if err != nil {
		return nil, requestError("", err)
	}
	if q.matchers, err = matcher.Parse(s.matchers, budget, req.Matchers); err != nil {
		return nil, requestError("", err)
	}
	var h storepb.SeriesRequestHints
	if q.blockMatchers, err = parseHints(budget, req.Hints, &h, "series"); err != nil {
		return nil, err
	}
	q.hints, q.queryStats = req.Hints != nil, h.EnableQueryStats
	// After what Thanos refuses too: a request with both faults hears of the same one.
	if err := checkNames("without_replica_labels", q.without); err != nil {
		return nil, err
	}
	if err := checkNames("shard_info.labels", req.ShardInfo.GetLabels()); err != nil {
		return nil, err
	}
	if sh := req.ShardInfo; sh.GetTotalShards() >= 1 && (sh.ShardIndex < 0 || sh.ShardIndex >= sh.TotalShards) {
		// Nothing belongs to such a shard. To say so would hide that some shard is not asked for.
		return nil, status.Errorf(codes.InvalidArgument, "shard_index %d is not one of %d shards", sh.ShardIndex, sh.TotalShards)
	}
	return q, nil
}

// Series implements storepb.StoreServer.
func (s *Server) Series(req *storepb.SeriesRequest, stream storepb.Store_SeriesServer) (err error) {
	defer s.recovered(&err)
	budget := s.compiler.Open(stream.Context())
	defer budget.Close()
	q, err := s.parseSeries(req, budget)
	if err != nil {
		return err
	}
	if err := s.ready(); err != nil {
		return err
	}
	r := s.newRequest(stream.Context(), methodSeries)
	s.metrics.pending.Inc()
	defer s.metrics.pending.Dec()
	defer r.finish()

	if err := r.enter(admission.SeriesRequest); err != nil {
		return statusOf(r.ctx, err, codes.Unavailable)
	}

	sending := s.stalls.watch(r.ctx)
	defer sending.stop()
	send := func(f *storepb.Frame) error {
		start := time.Now()
		if r.firstFrame == 0 {
			r.firstFrame = start.Sub(r.start)
		}
		err := sending.send(stream, f)
		r.addStage(stageSend, time.Since(start))
		return err
	}
	w := storepb.NewFrameWriter(s.opts.Frames, req.ResponseBatchSize, send)
	defer func() { r.sent = w.Stats(); w.Discard() }()
	view := s.opts.Catalog.View()
	attempt := func() error { return s.series(r, q, view, w) }
	beginAgain := func() {
		w.Discard()
		w = storepb.NewFrameWriter(s.opts.Frames, req.ResponseBatchSize, send)
		r.sentSizes = sizeCounts{}
	}
	err = r.answer(attempt)
	for n, reshapes := 0, 0; n < maxReplans; n++ {
		if reshapes < maxReshapes && w.Stats().Frames == 0 && irregular(err) {
			reshapes, n = reshapes+1, n-1
			beginAgain()
			r.forget()
			err = r.answer(attempt)
			continue
		}
		if !s.replaced(r.ctx, err) {
			break
		}
		view = s.opts.Catalog.View()
		again, ok := r.resumed(q, view)
		if !ok {
			if w.Stats().Frames > 0 {
				break
			}
			beginAgain()
		}
		if r.goesOnWith = nil; w.Stats().Series > 0 {
			r.goesOnWith = again
		}
		r.forget()
		err = r.answer(attempt)
	}
	r.succeeded = err == nil
	return statusOf(r.ctx, err, codes.Aborted)
}

// irregular reports whether err says that a block was found irregular. It is known as such by now,
// so that the same request, planned again, is answered.
func irregular(err error) bool {
	var e *block.IrregularError
	return errors.As(err, &e)
}

// resumed returns what view has of all that the request has looked at: the series that are written already stay, and the rest is answered from
// these blocks. There are none if one is gone for good, or what replaced it is not asked for: a series could be missing from both halves.
// Blocks that have come besides are left out: the answer would have their later series and not their first ones.
func (r *request) resumed(q *seriesQuery, view *catalog.View) (blocks []*catalog.Block, ok bool) {
	for _, old := range r.queried {
		cur := old
		if view.ByID(old.ID) != old {
			i := slices.IndexFunc(view.Blocks, func(b *catalog.Block) bool { return q.takesFor(b, old) })
			if i < 0 {
				return nil, false
			}
			cur = view.Blocks[i]
		}
		if !slices.Contains(blocks, cur) {
			blocks = append(blocks, cur)
		}
	}
	return blocks, true
}

// takesFor reports whether b has all series of old, and the request asks b for what it asked of old: the same labels in its answer, and
// the same matchers of its series. Nobody promises that of other content under old's name.
func (q *seriesQuery) takesFor(b, old *catalog.Block) bool {
	if b.ID == old.ID && b.Content != old.Content {
		return false
	}
	if b.Resolution != old.Resolution || !b.HasSourcesOf(old) || !blockMatches(b, q.blockMatchers) {
		return false
	}
	if !labels.Equal(dropLabels(b.Labels, q.without), dropLabels(old.Labels, q.without)) {
		return false
	}
	was, _ := seriesMatchers(q.matchers, old.Labels)
	is, ok := seriesMatchers(q.matchers, b.Labels)
	return ok && slices.Equal(is, was)
}

// series answers q from view into w: all of it, or what comes after the series that w has.
func (s *Server) series(r *request, q *seriesQuery, view *catalog.View, w *storepb.FrameWriter) error {
	plans, err := s.planSeries(r, q, view)
	defer func() {
		for _, p := range plans {
			p.Close()
		}
	}()
	if err != nil {
		return err
	}
	if err := r.sameShape(w); err != nil {
		return err
	}
	if len(plans) > 0 {
		if err := s.sendSeries(r, q, plans, w); err != nil {
			r.noteShape(plans, w)
			return err
		}
	}
	if q.hints {
		h := &storepb.SeriesResponseHints{QueriedBlocks: queriedBlocks(r.queried)}
		if q.queryStats {
			r.sent = w.Stats()
			h.QueryStats = r.queryStats()
		}
		a, err := anypb.New(h)
		if err != nil {
			return status.Errorf(codes.Internal, "marshal series response hints: %v", err)
		}
		return w.WriteHints(a)
	}
	return w.Flush()
}

// noteShape notes what an attempt that failed has written series of. Another one may go on after
// them.
func (r *request) noteShape(plans []*block.Plan, w *storepb.FrameWriter) {
	if w.Stats().Series == 0 {
		return
	}
	for _, p := range plans {
		if p.InIndexOrder() && !slices.Contains(r.inIndexOrder, p.Block()) {
			r.inIndexOrder = append(r.inIndexOrder, p.Block())
		}
	}
}

// sameShape fails an answer that was begun in the index order of a block which is known as
// irregular by now.
func (r *request) sameShape(w *storepb.FrameWriter) error {
	if w.Stats().Series == 0 {
		r.inIndexOrder = nil
	}
	for _, b := range r.inIndexOrder {
		if err := b.Reshaped(); err != nil {
			return err
		}
	}
	return nil
}

// chosen is a block that a request has to look at, and the matchers that its external labels leave.
type chosen struct {
	meta     *catalog.Block
	matchers []*labels.Matcher
}

// chooseSeries picks the blocks of a Series request: by resolution within each external label set, or those that an answer which has begun goes
// on with.
func (r *request) chooseSeries(q *seriesQuery, view *catalog.View) []chosen {
	var out []chosen
	var blocks []*catalog.Block
	if q.minT > q.maxT {
		return nil
	}
	if r.goesOnWith != nil {
		for _, b := range r.goesOnWith {
			ms, _ := seriesMatchers(q.matchers, b.Labels)
			r.queried = append(r.queried, b)
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
			r.queried = append(r.queried, b)
			out = append(out, chosen{meta: b, matchers: ms})
		}
	}
	return out
}

// planSeries finds the postings of every chosen block, side by side. The plans that it returns must be closed, on an error too.
func (s *Server) planSeries(r *request, q *seriesQuery, view *catalog.View) ([]*block.Plan, error) {
	blocks := r.chooseSeries(q, view)
	plans := make([]*block.Plan, len(blocks))
	anew := r.anew
	r.anew = true
	err := r.stage(stagePostings, "bucket_store_preload_all", func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(blockConcurrency)
		for i, c := range blocks {
			if len(c.matchers) == 0 {
				// The contract: a request whose matchers are all about external labels gets nothing.
				continue
			}
			g.Go(contained(func() error {
				plan, err := s.block(c.meta).Plan(ctx, c.matchers, block.PlanOptions{
					External: dropLabels(c.meta.Labels, q.without),
					Dropped:  q.without,
					Sets:     block.SetsBuilt,
					Anew:     anew,
					MinTime:  q.minT, MaxTime: q.maxT,
					Account:  &r.postings,
					OnSeries: func(n int) error { return r.series.Reserve(uint64(n)) },
					Hold:     r.plan,
				})
				if err != nil {
					return fmt.Errorf("fetch postings for block %s: %w", c.meta.ID, err)
				}
				plans[i] = plan
				return nil
			}))
		}
		return g.Wait()
	})
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

// record tells the recorder what was asked of which blocks: those of one external label set have their matchers in common.
func (r *request) record(q *seriesQuery, blocks []chosen) {
	rec := r.server.opts.Recorder
	if rec == nil {
		return
	}
	for from := 0; from < len(blocks); {
		ms := blocks[from].matchers
		to := from + 1
		for to < len(blocks) && len(ms) > 0 && len(blocks[to].matchers) == len(ms) && &blocks[to].matchers[0] == &ms[0] {
			to++
		}
		if len(ms) > 0 {
			// INVARIANT: blocks and queried go side by side.
			rec.Note(r.queried[from:to], ms, q.without)
		}
		from = to
	}
}

// streamBytes returns how much index the streams of n blocks read at a time.
func streamBytes(n int) int64 {
	return min(max(runBytesPerRequest/int64(n), minRunBytes), maxRunBytes)
}

// planBytes estimates what a request over plans holds besides its windows: postings, index pages and segments. Of what streams give back before their
// first segment, only as many as are started side by side hold theirs.
func planBytes(plans []*block.Plan) int64 {
	run := streamBytes(len(plans))
	total, passing := int64(0), make([]int64, len(plans))
	for i, p := range plans {
		passing[i] = p.PassingBytes(run)
		total += p.StreamBytes(run) - passing[i]
	}
	slices.Sort(passing)
	for _, n := range passing[max(len(passing)-blockConcurrency, 0):] {
		total += n
	}
	return total
}

// windowBytes is what a request reserves for its first window: less than minWindowBytes where its postings show that it cannot need as
// much, so that a small request counts as one; more where a single series may, because a series is never divided over windows.
func (s *Server) windowBytes(q *seriesQuery, plans []*block.Plan) int64 {
	all, one := int64(0), int64(0)
	for _, p := range plans {
		each := int64(windowSeriesBytes + guessedLabels)
		if !q.req.SkipChunks {
			n, bytes := p.Block().ChunksPerSeries(q.minT, q.maxT)
			// Records of a series lie next to one another, most often on one page more than they fill.
			each += n*windowChunkBytes + bytes + s.opts.ChunkPageBytes
		}
		one += each
		all += each * int64(p.Postings())
	}
	return max(min(minWindowBytes, all), min(one, maxFirstWindow))
}

// postings is an upper bound of the series of plans.
func postings(plans []*block.Plan) (n int64) {
	for _, p := range plans {
		n += int64(p.Postings())
	}
	return n
}

// frameBytes estimates the buffers of the frame that is being written and of the one before, which grpc has until it is sent, of series with so many
// bytes of labels: powers of two. Labels are not divided over frames.
func (q *seriesQuery) frameBytes(plans []*block.Plan, labels int64) int64 {
	all, one := int64(0), int64(0)
	for _, p := range plans {
		each := labels
		if !q.req.SkipChunks {
			_, bytes := p.Block().ChunksPerSeries(q.minT, q.maxT)
			each += bytes
		}
		one += each
		all += each * int64(p.Postings())
	}
	batch := min(max(q.req.ResponseBatchSize, 1), storepb.MaxFrameBytes)
	return 2 * min(2*min(all, batch*one), max(storepb.MaxFrameBytes, 2*labels))
}

// sources starts the series streams of plans and reads their first series, side by side. The caller closes the streams.
func (s *Server) sources(ctx context.Context, r *request, q *seriesQuery, plans []*block.Plan) ([]*source, error) {
	sources := make([]*source, len(plans))
	for i, p := range plans {
		opts := block.StreamOptions{
			MinTime: q.minT, MaxTime: q.maxT,
			SkipChunks: q.req.SkipChunks,
			RunBytes:   streamBytes(len(plans)),
			Account:    &r.seriesPages,
			OnSeries:   func(n int) error { return r.series.Reserve(uint64(n)) },
			OnChunks:   func(n int) error { return r.chunks.Reserve(uint64(n)) },
			Leave:      r.leave(),
		}
		if m := q.req.ShardInfo.Matcher(); m != nil {
			opts.Keep = m.Matches
		}
		sources[i] = &source{
			stream: p.Stream(ctx, opts),
			chunks: p.Block().ChunkReader(&r.chunkPages, r.leave()),
		}
	}
	g := errgroup.Group{}
	g.SetLimit(blockConcurrency)
	for _, src := range sources {
		g.Go(contained(src.next))
	}
	return sources, g.Wait()
}

// sendSeries merges the series of plans and sends them, window by window: while one is encoded and sent, the next one's chunks are
// fetched.
func (s *Server) sendSeries(r *request, q *seriesQuery, plans []*block.Plan, w *storepb.FrameWriter) (err error) {
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
				plans[i].CameToNothing()
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

	p := &pipeline{server: s, request: r, query: q, plans: plans, sources: sources, merge: newMerge(sources), granted: windowBytes, frames: frames}
	if p.left = q.limit - w.Stats().Series; p.left < q.limit {
		p.after = r.lastSeries
	}
	produced := make(chan *window)
	w.Expect(min(p.left, postings(plans)))
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
			r.lastSeries = append(r.lastSeries[:0], win.series[n-1].labels...)
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
func (r *request) sendWindow(ctx context.Context, enc *encoder, win *window, w *storepb.FrameWriter) (int, error) {
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

// pipeline is the producing side of a Series answer: it merges series into windows and fetches their chunks. Windows go round: the
// consumer puts one into free when it is sent. There is one at first, and a second, the look-ahead, once there is room for it.
type pipeline struct {
	server  *Server
	request *request
	query   *seriesQuery
	plans   []*block.Plan
	sources []*source
	merge   *merge
	free    chan *window
	left    int64  // how many series may still be sent
	after   []byte // the series up to this one are sent already; nil for none
	granted int64  // how many bytes a window may hold
	frames  int64  // how many bytes frames may hold
	excess  int64  // by how much the largest window so far went beyond that, reserved too
}

// run produces windows until the merge ends or fails; the last window says so in its err.
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
		r.giveBack(win.reset(len(p.sources)))
		win.grow(&density, target)
		err := contained(func() error {
			start := time.Now()
			if p.after != nil {
				if err := p.merge.skip(ctx, p.after); err != nil {
					return err
				}
				p.after = nil
			}
			p.left -= win.fill(ctx, p.merge, target, p.server.opts.ChunkPageBytes, p.left, p.query.req.SkipChunks)
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
			// Its chunks are not all there: none of its series is sent.
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
		if windows == 1 && r.tryGrow(p.granted+p.excess) {
			windows = 2
			p.free <- &window{}
		}
		// A window larger than what was reserved needs leave first: look-ahead never waits for memory.
		if target = min(2*target, maxWindowBytes); target > p.granted {
			if r.tryGrow(windows * (target - p.granted)) {
				p.granted = target
			} else {
				target = p.granted
			}
		}
	}
}

// admit reserves what a window holds beyond what it was granted: the last series of a window may go beyond, and one with very many chunks
// far beyond; and what frames of its series hold whose labels are longer than was expected.
func (p *pipeline) admit(win *window, windows int64) error {
	if win.longest > guessedLabels {
		// The labels sent last are remembered, too.
		if more := p.query.frameBytes(p.plans, win.longest) + win.longest - p.frames; more > 0 {
			if err := p.request.grow(more); err != nil {
				return fmt.Errorf("frames of series with %d bytes of labels: %w", win.longest, err)
			}
			p.frames += more
		}
	}
	over := win.bytes - p.granted
	if over <= max(p.excess, windowSlack) {
		return nil
	}
	if err := p.request.grow(windows * (over - p.excess)); err != nil {
		return fmt.Errorf("a window of %d bytes of chunks: %w", win.bytes, err)
	}
	p.excess = over
	return nil
}
