package store

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"larder/internal/pagecache"
	"larder/internal/panics"
	"larder/store/admission"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/storepb"
)

// The stages of a request: where its time goes. They overlap where work does (chunks are fetched while frames are sent), so that their
// sum may exceed the request's duration. The wait for headers is part of the postings stage, too.
type stageID int

const (
	stageGate stageID = iota
	stageHeader
	stagePostings
	stageSeries
	stageChunks
	stageSend
	stageCount
)

var stageNames = [stageCount]string{"gate", "header", "postings", "series", "chunks", "send"}

// request is what one running call adds up: counters by kind, stage times, limits and its turn. Its accounts, stage times and turn are
// shared by its goroutines.
type request struct {
	server *Server
	ctx    context.Context
	method string
	tenant string // as limits and turns know it
	start  time.Time
	turn   *admission.Turn // nil before enter

	postings, seriesPages, chunkPages pagecache.Account
	series, chunks                    *admission.Limiter
	stages                            [stageCount]atomic.Int64
	spare                             atomic.Int64 // bytes that the turn has beyond what is held, for grow
	firstFrame                        time.Duration

	// What follows is written by the handler's goroutine alone.
	least         int64            // what the request settles for at least: what it could not get by growing, before it gave way
	queried       []*catalog.Block // of the last plan
	anew          bool             // plans to come are not the first
	goesOnWith    []*catalog.Block // of the plans to come, if series are written already; nil: those that the view chooses
	inIndexOrder  []*block.Block   // whose series were read so by attempts that have written some
	lastSeries    []byte           // labels of the last series written; never nil, for they may be none
	blocksQueried int
	lazyBlocks    int // in which matchers stayed pending
	emptyBlocks   int // in which the matchers matched nothing
	setBlocks     int // that kept series sets answer for
	postingsCount int64
	planned       block.PostingsStats
	decoded       block.StreamStats
	records       block.ChunkStats
	sent          storepb.FrameStats
	sentSizes     sizeCounts // chunk bytes of the series sent
	succeeded     bool
}

func (s *Server) newRequest(ctx context.Context, method string) *request {
	r := &request{server: s, ctx: ctx, method: method, tenant: admission.TenantName(admission.TenantOf(ctx)), start: time.Now(), lastSeries: []byte{}}
	r.limit()
	return r
}

// limit begins to count what the limits bound. Work for an earlier attempt that goes on because others wait for it counts in what that one had.
func (r *request) limit() {
	var bytes *admission.BytesLimiter
	r.series, r.chunks, bytes = r.server.limits.For(r.tenant)
	// Bytes count when they are used or fetched, whichever is more.
	spend := func(what string) func(touched, fetched int64) error {
		return func(touched, fetched int64) error { return bytes.Reserve(what, uint64(max(touched, fetched))) }
	}
	r.postings.Spend = spend("postings")
	r.seriesPages.Spend = spend("series")
	r.chunkPages.Spend = spend("chunks")
}

// methodSeries is the name of the Series call in metrics.
const methodSeries = "Series"

// stage runs f under a span and adds its time to a stage.
func (r *request) stage(id stageID, span string, f func(ctx context.Context) error) error {
	start := time.Now()
	ctx, sp := r.server.tracer.Start(r.ctx, span)
	err := f(ctx)
	sp.End()
	r.addStage(id, time.Since(start))
	return err
}

func (r *request) addStage(id stageID, d time.Duration) { r.stages[id].Add(int64(d)) }

// enter waits until the request may begin: with the bytes that a small request may hold and, if it is a Series request, with a place.
func (r *request) enter(kind admission.Kind) error {
	return r.stage(stageGate, "store_query_gate_ismyturn", func(ctx context.Context) (err error) {
		r.turn, err = r.server.admission.Enter(ctx, r.tenant, kind)
		return err
	})
}

// plan asks for leave to hold n more bytes while planning. Its errors end the attempt: see answer.
func (r *request) plan(n int64) error { return r.turn.Plan(n) }

// settle asks for leave to hold n bytes in all, what the plan takes included, before the first frame. Its errors end the attempt: see answer.
func (r *request) settle(n int64) error {
	r.spare.Store(max(r.least-n, 0))
	err := r.turn.Settle(max(n, r.least))
	if err == nil {
		r.turn.ObserveWait()
	}
	return err
}

// maxWaits is how often a request waits for more bytes. Each time it asks for more, mostly for twice
// as many, so that it soon has enough or is rejected.
const maxWaits = 16

// answer calls attempt until it has answered. An attempt that must wait leaves nothing running. The
// request waits for what it needs and tries again; frames that are sent stay.
func (r *request) answer(attempt func() error) error {
	for waits := 0; ; waits++ {
		err := attempt()
		var must *admission.MustWait
		if !errors.As(err, &must) || waits == maxWaits || r.ctx.Err() != nil {
			return err
		}
		r.server.metrics.requeued.WithLabelValues(r.method).Inc()
		if must.BeyondEstimate {
			r.least = must.Need
		}
		r.forget()
		err = r.stage(stageGate, "store_query_gate_ismyturn", func(ctx context.Context) error { return r.turn.Wait(ctx, must.Need) })
		if err != nil {
			return err
		}
	}
}

// tryGrow asks for leave to hold n more bytes, without waiting.
func (r *request) tryGrow(n int64) bool { return r.turn.TryReserve(n) }

// grow asks for leave to hold n more bytes without which the request cannot go on. It does not wait either; its errors end the attempt: see answer.
// What it has settled for because it lacked that before is used first: else it would lack as much again however much it has.
func (r *request) grow(n int64) error {
	for {
		spare := r.spare.Load()
		use := min(spare, n)
		if use <= 0 {
			return r.turn.Reserve(n)
		}
		if !r.spare.CompareAndSwap(spare, spare-use) {
			continue
		}
		if n -= use; n == 0 {
			return nil
		}
	}
}

// giveBack says that n bytes that grow was asked for are no longer held. They stay the request's: what it lacked once it may lack again.
func (r *request) giveBack(n int64) { r.spare.Add(n) }

// leave is how the request is asked for more than was estimated.
func (r *request) leave() block.Leave {
	return block.Leave{Grow: r.grow, TryGrow: r.tryGrow, GiveBack: r.giveBack}
}

// forget forgets what a vain attempt has noted, but for the series that are written. Its goroutines are over. What it has read stays in the
// accounts, but not in the limits: those are about the answer.
func (r *request) forget() {
	r.queried = nil
	r.turn.Restart()
	r.limit()
}

func (r *request) notePlan(p *block.Plan) {
	r.planned.Add(p.Stats())
	if p.Stats().Pending > 0 {
		r.lazyBlocks++
	}
	if p.Kept() {
		r.setBlocks++
	}
	r.postingsCount += int64(p.Postings())
	// Headers of several blocks are waited for side by side: the longest wait is the request's.
	if d := int64(p.HeaderWait()); d > r.stages[stageHeader].Load() {
		r.stages[stageHeader].Store(d)
	}
}

func (r *request) noteSource(src *source) {
	r.decoded.Add(src.stream.Stats())
	r.records.Add(src.chunks.Stats())
}

// finish releases what the request holds and accounts for it.
func (r *request) finish() {
	r.turn.Close()
	r.server.names.observe(r.tenant, r.used(), func(label string) { r.server.metrics.observe(r, label) })
	if sp := trace.SpanFromContext(r.ctx); sp.IsRecording() {
		attrs := []attribute.KeyValue{
			attribute.String("larder.tenant", r.tenant),
			attribute.Int("larder.blocks", r.blocksQueried),
			attribute.Int("larder.blocks.series_sets", r.setBlocks),
			attribute.Int64("larder.postings", r.postingsCount),
			attribute.Int64("larder.series.sent", r.sent.Series),
			attribute.Int64("larder.series.sorted", r.decoded.SortedSeries),
			attribute.Int64("larder.chunks.sent", r.sent.Chunks),
			attribute.Int64("larder.bytes.sent", r.sent.Bytes),
		}
		for _, k := range r.kinds() {
			attrs = append(attrs,
				attribute.Int64("larder."+k.name+".bytes.touched", k.acct.TouchedBytes.Load()),
				attribute.Int64("larder."+k.name+".bytes.fetched", k.acct.FetchedBytes.Load()),
				attribute.Int64("larder."+k.name+".requests", k.acct.Requests.Load()))
		}
		for i, name := range stageNames {
			attrs = append(attrs, attribute.Float64("larder.stage."+name+".seconds", time.Duration(r.stages[i].Load()).Seconds()))
		}
		sp.SetAttributes(attrs...)
	}
}

// used is how many bytes the request was worth, of what it looked at and what it sent.
func (r *request) used() int64 {
	n := r.sent.Bytes
	for _, k := range r.kinds() {
		n += k.acct.TouchedBytes.Load()
	}
	return n
}

type kind struct {
	name string
	acct *pagecache.Account
}

func (r *request) kinds() [3]kind {
	return [...]kind{{"postings", &r.postings}, {"series", &r.seriesPages}, {"chunks", &r.chunkPages}}
}

// queryStats is what a client gets that asks for it. Pages stand for Thanos's ranges: a page is fetched or not.
func (r *request) queryStats() *storepb.QueryStats {
	post, ser, chk := &r.postings, &r.seriesPages, &r.chunkPages
	return &storepb.QueryStats{
		BlocksQueried:     int64(r.blocksQueried),
		MergedSeriesCount: r.sent.Series,
		MergedChunksCount: r.sent.Chunks,

		PostingsTouched:        int64(r.planned.Lists),
		PostingsTouchedSizeSum: r.planned.ListBytes,
		PostingsToFetch:        int64(r.planned.Lists),
		PostingsFetched:        int64(r.planned.Lists),
		PostingsFetchedSizeSum: post.FetchedBytes.Load(),
		PostingsFetchCount:     post.Requests.Load(),

		SeriesTouched:        r.decoded.Entries,
		SeriesTouchedSizeSum: r.decoded.EntryBytes,
		SeriesFetched:        r.decoded.Entries,
		SeriesFetchedSizeSum: ser.FetchedBytes.Load(),
		SeriesFetchCount:     ser.Requests.Load(),

		ChunksTouched:        r.records.Records,
		ChunksTouchedSizeSum: r.records.RecordBytes,
		ChunksFetched:        r.records.Records,
		ChunksFetchedSizeSum: chk.FetchedBytes.Load(),
		ChunksFetchCount:     chk.Requests.Load(),

		DataDownloadedSizeSum: post.FetchedBytes.Load() + ser.FetchedBytes.Load() + chk.FetchedBytes.Load(),
		GetAllDuration:        durationpb.New(time.Duration(r.stages[stagePostings].Load())),
		MergeDuration:         durationpb.New(time.Duration(r.stages[stageSeries].Load())),
	}
}

// contained makes a goroutine's panic its request's Internal error.
func contained(f func() error) func() error { return panics.Contained(f) }

// recovered turns a panic of a handler, or of what it waited for, into an Internal error, and notes those that nobody has.
func (s *Server) recovered(err *error) {
	if v := recover(); v != nil {
		*err = s.panics.Caught(v)
	}
	if s.panics.Note(*err) {
		*err = status.Error(codes.Internal, (*err).Error())
	}
}

// statusOf gives err the code that a client of the request with the given context gets: that of the request's end where it was cancelled
// or timed out, the error's own where it carries one, else otherwise. The text stays whole, because Queriers look into it.
//
// Errors of the bucket carry codes and deadlines that are not the request's: an object store's client may speak gRPC or give up by
// itself. To the client they are all the same fault.
func statusOf(ctx context.Context, err error, otherwise codes.Code) error {
	if err == nil {
		return nil
	}
	var (
		pe      *panics.Error
		fault   *block.Fault
		read    *pagecache.ReadError
		carried interface{ GRPCStatus() *status.Status }
	)
	switch {
	case errors.As(err, &pe):
		return err
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		return status.Error(status.FromContextError(ctx.Err()).Code(), err.Error())
	case errors.As(err, &fault), errors.As(err, &read):
	case errors.As(err, &carried):
		if st := carried.GRPCStatus(); st.String() != err.Error() {
			return status.Error(st.Code(), err.Error())
		}
		return err // nothing is wrapped around it: its text must not say twice what code it has
	}
	return status.Error(otherwise, err.Error())
}

// ready returns an error as long as nobody knows what the bucket holds: an empty answer would say that there is nothing.
func (s *Server) ready() error {
	if !s.opts.Catalog.View().Ready {
		return status.Error(codes.Unavailable, "Not ready: the blocks of the bucket are not known yet")
	}
	return nil
}
