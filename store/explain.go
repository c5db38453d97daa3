package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"larder/internal/bucket/cost"
	"larder/internal/explanation"
	"larder/internal/pagecache"
	"larder/store/admission"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/storepb"
)

// Explain says what a Series request would read of the bucket. It passes the same checks, limits
// and admission as the request would, up to the series; like a label request it needs bytes and no
// place. It reads the posting lists that are not kept, and no series entries and no chunks: those
// of series entries follow from the postings, those of chunks are estimated. It therefore leaves
// the postings in the caches, and reports the state before it. If an estimate decides whether the
// request exceeds a limit, a note says so.
func (s *Server) Explain(
	ctx context.Context, req *storepb.SeriesRequest,
) (out *explanation.Explanation, err error) {
	defer s.recovered(&err)
	budget := s.compiler.Open(ctx)
	defer budget.Close()
	q, err := s.parseSeries(req, budget)
	if err != nil {
		return nil, err
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	r := s.newRequest(ctx, "Explain", q.asked())
	defer r.finish(&err)
	defer s.recovered(&err) // before finish, which tells of a panic
	if err := r.enter(admission.LabelRequest); err != nil {
		return nil, statusOf(r.ctx, err, codes.Unavailable)
	}
	err = r.answer(func() (err error) {
		out, err = s.forecast(r, q)
		return err
	})
	r.succeeded = err == nil
	return out, statusOf(r.ctx, err, codes.Aborted)
}

// blockForecast is a block of a forecast, with its plan.
type blockForecast struct {
	chosen
	plan *block.Plan
	out  explanation.Block
}

// forecast makes one attempt to forecast what q reads.
func (s *Server) forecast(r *request, q *seriesQuery) (*explanation.Explanation, error) {
	var blocks []*blockForecast
	for _, c := range r.chooseSeries(q, s.opts.Catalog.View()) {
		blocks = append(blocks, &blockForecast{chosen: c, out: explainedBlock(c.meta)})
	}
	r.blocksQueried = len(blocks)
	defer func() {
		for _, b := range blocks {
			if b.plan != nil {
				b.plan.Close()
			}
		}
	}()
	none := func(int) int { return 0 }
	find := func(ctx context.Context, _ *blockTimes) error {
		return concurrently(ctx, len(blocks), none, func(ctx context.Context, i int) error {
			return s.forecastPostings(ctx, r, q, blocks[i])
		})
	}
	err := r.stage(stagePostings, "explain_postings", "", find)
	if err != nil {
		return nil, err
	}
	var plans []*block.Plan
	for _, b := range blocks {
		if b.plan != nil {
			r.notePlan(b.plan)
			plans = append(plans, b.plan)
		}
	}
	// Blocks are forecast one by one, each with a stream at most.
	if len(plans) > 0 {
		if err := r.settle(planBytes(plans, q.req.SkipChunks)); err != nil {
			return nil, err
		}
	}
	var more uncertain
	run, windows := streamBytes(max(len(plans), 1)), s.forecastWindows(q, plans)
	read := func(ctx context.Context, _ *blockTimes) error {
		for _, b := range blocks {
			if b.plan == nil {
				continue
			}
			if err := s.forecastReads(ctx, r, q, b, run, windows, &more); err != nil {
				return err
			}
		}
		return nil
	}
	if err := r.stage(stageSeries, "explain_reads", "", read); err != nil {
		return nil, err
	}
	out := explain(r, q, blocks)
	out.Notes = append(out.Notes, more.notes(r)...)
	return out, nil
}

// uncertain counts what a request may match or read besides what a forecast has charged.
type uncertain struct{ series, chunks, bytes uint64 }

// notes says which limits the request may exceed.
func (u *uncertain) notes(r *request) (out []string) {
	note := func(what string, all, limit uint64, above bool) {
		if above {
			out = append(out, fmt.Sprintf(
				"The request may be rejected: "+what+", and the limit is %d.", all, limit))
		}
	}
	all, limit, above := r.series.Foresee(u.series)
	note("up to %d series match", all, limit, above)
	all, limit, above = r.chunks.Foresee(u.chunks)
	note("about %d chunks match", all, limit, above)
	all, limit, above = r.bytes.Foresee(u.bytes)
	note("about %d bytes are needed", all, limit, above)
	return out
}

func (s *Server) forecastPostings(
	ctx context.Context, r *request, q *seriesQuery, b *blockForecast,
) error {
	if len(b.matchers) == 0 {
		return nil // see planSeries
	}
	reader := s.block(b.meta)
	e, stats, err := reader.ForecastPostings(ctx, b.matchers)
	if err != nil {
		return fmt.Errorf("fetch postings for block %s: %w", b.meta.ID, err)
	}
	b.out.Postings = phaseOf(e, int64(stats.Lists), false)
	plan, err := reader.Plan(ctx, b.matchers, block.PlanOptions{
		External: dropLabels(b.meta.Labels, q.without), Dropped: q.without,
		Sets: block.UseKeptSets, MinTime: q.minT, MaxTime: q.maxT, Account: &r.postings,
		OnSeries: func(n int) error { return r.series.Reserve(uint64(n)) },
		Reserve:  r.reserveForPlan,
	})
	if err != nil {
		return fmt.Errorf("fetch postings for block %s: %w", b.meta.ID, err)
	}
	b.out.Pending = plan.Stats().Pending
	switch {
	case plan.Kept():
		b.out.From = explanation.FromSet
	case plan.Stats().Cached > 0:
		b.out.From = explanation.FromKept
	default:
		b.out.From = explanation.FromPostings
	}
	if plan.Kept() || plan.Stats().Cached > 0 {
		b.out.Postings.Read = explanation.Reads{}
	}
	if plan.Postings() == 0 {
		plan.Close()
		b.out.From = explanation.FromNothing
		return nil
	}
	b.plan = plan
	return nil
}

// forecastReads forecasts the series entries and chunks of a block.
func (s *Server) forecastReads(
	ctx context.Context, r *request, q *seriesQuery, b *blockForecast, run int64,
	windows []float64, more *uncertain,
) error {
	e, err := b.plan.ForecastSeries(run)
	if err != nil {
		return err
	}
	if err := r.seriesPages.Spend(e.Bytes, 0); err != nil {
		return fmt.Errorf("receive series from %s: %w", b.meta.ID, err)
	}
	b.out.Series = phaseOf(e, int64(b.plan.Postings()), b.plan.Kept())
	opts := block.StreamOptions{
		MinTime: q.minT, MaxTime: q.maxT, SkipChunks: q.req.SkipChunks, RunBytes: run,
		// The bytes were charged above.
		Account: &pagecache.Account{}, Reserver: r,
		OnSeries: func(n int) error { return r.series.Reserve(uint64(n)) },
		OnChunks: func(n int) error { return r.chunks.Reserve(uint64(n)) },
	}
	if m := q.req.ShardInfo.Matcher(); m != nil {
		opts.Keep = m.Matches
	}
	inMemory := e.Pages > 0 && e.Memory == e.Pages
	f, err := b.plan.ForecastChunks(ctx, opts, windows, inMemory)
	if err != nil {
		return err
	}
	b.out.Chunks = phaseOf(f.Estimate, f.Chunks, !f.Exact || len(windows) > 1)
	more.bytes += uint64(f.Estimate.Bytes)
	if !f.Exact {
		more.chunks += uint64(f.Chunks)
		if b.plan.Lazy() {
			more.series += uint64(b.plan.Postings())
		}
	}
	return nil
}

// forecastWindows returns where the windows of a cold answer probably end, as fractions of it.
func (s *Server) forecastWindows(q *seriesQuery, plans []*block.Plan) (ends []float64) {
	if q.req.SkipChunks || len(plans) == 0 {
		return nil
	}
	all := s.answerSize(q, plans).chunks
	if s.opts.OneAhead || all > maxWholeAnswer {
		next := int64(coldWindowBytes)
		if s.opts.OneAhead {
			next = firstWindowBytes
		}
		for at := next; at < all; at += next {
			ends = append(ends, float64(at)/float64(all))
			next = min(2*next, maxWindowBytes)
		}
	}
	return append(ends, 1)
}

// explain adds the blocks up.
func explain(r *request, q *seriesQuery, blocks []*blockForecast) *explanation.Explanation {
	out := explanationOf(r, q)
	lazy, sets := false, false
	for _, b := range blocks {
		lazy = lazy || b.out.Pending > 0
		sets = sets || b.out.From == explanation.FromSet
		out.Blocks = append(out.Blocks, b.out)
	}
	finish(out)
	trips := 0
	for _, p := range []explanation.Phase{
		out.Total.Postings, out.Total.Series, out.Total.Chunks,
	} {
		if p.Read.Requests > 0 {
			trips++
		}
	}
	out.Trips = &trips
	if out.Total.Chunks.Estimated {
		out.Notes = append(out.Notes, "Reads of chunks are estimated from meta.json and from "+
			"the places of the series in the index.")
	}
	if lazy {
		out.Notes = append(out.Notes, "Some matchers are checked on the series. "+
			"Fewer series and chunks may match than shown.")
	}
	if sets {
		out.Notes = append(out.Notes, "Series in memory need no index. "+
			"What they needed without caches is known in bytes only.")
	}
	out.Notes = append(out.Notes, "Memory and disk were looked at. Memcached was not asked.")
	return out
}

// finish adds up the blocks of an explanation and drops those that read least.
func finish(out *explanation.Explanation) {
	out.Queried = len(out.Blocks)
	for i := range out.Blocks {
		out.Blocks[i].Finish()
		out.Total.Add(out.Blocks[i].Phases)
	}
	out.Total.Finish()
	slices.SortStableFunc(out.Blocks, func(a, b explanation.Block) int {
		return cmp.Or(cmp.Compare(b.Sum.Read.Requests, a.Sum.Read.Requests),
			cmp.Compare(b.Sum.Read.Bytes, a.Sum.Read.Bytes),
			cmp.Compare(b.Sum.Needed.Bytes, a.Sum.Needed.Bytes))
	})
	if n := len(out.Blocks); n > explanation.MaxBlocks {
		out.Blocks = slices.Clip(out.Blocks[:explanation.MaxBlocks])
		out.Notes = append(out.Notes, "Only the "+strconv.Itoa(explanation.MaxBlocks)+" of "+
			strconv.Itoa(n)+" blocks are listed that read most. The totals have all.")
	}
}

func explanationOf(r *request, q *seriesQuery) *explanation.Explanation {
	return &explanation.Explanation{
		Tenant: r.tenant, Matchers: matchersText(q.matchers), MinTime: q.minT, MaxTime: q.maxT,
		SkipChunks: q.req.SkipChunks,
	}
}

func explainedBlock(b *catalog.Block) explanation.Block {
	return explanation.Block{
		ID: b.ID.String(), MinTime: b.MinTime, MaxTime: b.MaxTime, Resolution: b.Resolution,
		Labels: b.Labels.String(), From: explanation.FromNothing,
	}
}

func phaseOf(e pagecache.Estimate, items int64, estimated bool) explanation.Phase {
	return explanation.Phase{
		Items: items, Estimated: estimated,
		Needed: readsOf(e.Cold.Requests, e.Cold.Bytes),
		Read:   readsOf(e.Warm.Requests, e.Warm.Bytes),
		Pages:  e.Pages, Memory: e.Memory, Disk: e.Disk,
	}
}

func readsOf(requests, bytes int64) explanation.Reads {
	return explanation.Reads{
		Requests: requests, Bytes: bytes, USD: float64(requests) * cost.USDPerRequest,
	}
}

// ExplainRun makes a Series request, drops its answer and says what it has read. It passes limits,
// admission and the rest like the request of a client. If the request fails after it has begun,
// ExplainRun returns what it has read until then, together with the error.
func (s *Server) ExplainRun(
	ctx context.Context, req *storepb.SeriesRequest,
) (*explanation.Explanation, error) {
	var out *explanation.Explanation
	rec := &blockAccounts{}
	err := s.serveSeries(req, &droppedAnswer{ctx: ctx}, &seriesHooks{
		accounts: rec,
		finished: func(r *request, q *seriesQuery) { out = r.explained(q, rec) },
	})
	return out, err
}

// seriesHooks observe a Series request. nil observes nothing.
type seriesHooks struct {
	accounts *blockAccounts
	finished func(r *request, q *seriesQuery)
}

// began is called before the request does anything.
func (h *seriesHooks) began(r *request) {
	if h != nil {
		r.byBlock = h.accounts
	}
}

// ended is called after the request has finished, or failed.
func (h *seriesHooks) ended(r *request, q *seriesQuery) {
	if h != nil {
		h.finished(r, q)
	}
}

// explained says what a request has read.
func (r *request) explained(q *seriesQuery, rec *blockAccounts) *explanation.Explanation {
	out := explanationOf(r, q)
	out.Ran = true
	for _, b := range rec.all() {
		one := explainedBlock(b.meta)
		one.From = explanation.FromRun
		one.Postings, one.Series, one.Chunks =
			phaseCounted(&b.postings), phaseCounted(&b.series), phaseCounted(&b.chunks)
		out.Blocks = append(out.Blocks, one)
	}
	finish(out)
	out.Queried = r.blocksQueried
	out.Total.Postings.Items = int64(r.planned.Lists)
	out.Total.Series.Items, out.Total.Chunks.Items = r.decoded.Entries, r.records.Records
	f := r.finished()
	out.Run = &explanation.Run{
		Seconds: explanation.Seconds(f.Total), FirstFrame: explanation.Seconds(f.FirstFrame),
		Series: r.sent.Series, Chunks: r.sent.Chunks, Bytes: r.sent.Bytes,
		Attempts: 1 + r.replans + r.reshapes + r.requeues,
	}
	for i, name := range stageNames {
		out.Run.Stages = append(out.Run.Stages,
			explanation.Stage{Name: name, Seconds: explanation.Seconds(f.Stages[i])})
	}
	return out
}

// phaseCounted returns what an account has counted.
func phaseCounted(a *pagecache.Account) explanation.Phase {
	return explanation.Phase{
		Needed: explanation.Reads{Bytes: a.TouchedBytes.Load()},
		Read:   readsOf(a.Requests.Load(), a.FetchedBytes.Load()),
		Pages:  a.Touched.Load(), Memory: a.Hits.Load(), Disk: a.DiskHits.Load(),
		Memcached: a.RemoteHits.Load() - a.DiskHits.Load(), Shared: a.Coalesced.Load(),
	}
}

// blockAccounts counts the reads of a request by block. nil counts nothing.
type blockAccounts struct {
	mu     sync.Mutex // guards blocks
	blocks []*blockAccount
}

type blockAccount struct {
	meta                     *catalog.Block
	postings, series, chunks pagecache.Account
}

// all returns the accounts, one for each block: a block of several attempts has had several.
func (a *blockAccounts) all() (out []*blockAccount) {
	a.mu.Lock()
	defer a.mu.Unlock()
	of := map[*catalog.Block]*blockAccount{}
	for _, b := range a.blocks {
		sum := of[b.meta]
		if sum == nil {
			sum = &blockAccount{meta: b.meta}
			of[b.meta], out = sum, append(out, sum)
		}
		b.postings.MoveTo(&sum.postings)
		b.series.MoveTo(&sum.series)
		b.chunks.MoveTo(&sum.chunks)
	}
	return out
}

// postingsAccount returns the account for the postings of a block: that of the request, or a part
// of it.
func (r *request) postingsAccount(b *catalog.Block) *pagecache.Account {
	if r.byBlock == nil {
		return &r.postings
	}
	part := r.byBlock.add(b)
	partOf(&part.postings, &r.postings)
	return &part.postings
}

// readAccounts returns the accounts for the series entries and chunks of a block.
func (r *request) readAccounts(b *catalog.Block) (series, chunks *pagecache.Account) {
	if r.byBlock == nil {
		return &r.seriesPages, &r.chunkPages
	}
	part := r.byBlock.add(b)
	partOf(&part.series, &r.seriesPages)
	partOf(&part.chunks, &r.chunkPages)
	return &part.series, &part.chunks
}

func partOf(part, whole *pagecache.Account) { part.Whole, part.Spend = whole, whole.Spend }

func (a *blockAccounts) add(b *catalog.Block) *blockAccount {
	one := &blockAccount{meta: b}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.blocks = append(a.blocks, one)
	return one
}

// droppedAnswer is the stream of a request without a client.
type droppedAnswer struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the context of the request.
func (d *droppedAnswer) Context() context.Context { return d.ctx }

// SendMsg drops a frame. Its sender releases it.
func (d *droppedAnswer) SendMsg(any) error { return d.ctx.Err() }

// Send is not called: answers are frames.
func (d *droppedAnswer) Send(*storepb.SeriesResponse) error { return d.ctx.Err() }
