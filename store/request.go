package store

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/durationpb"

	"larder/internal/activity"
	"larder/internal/bucket/slots"
	"larder/internal/pagecache"
	"larder/internal/requestlog"
	"larder/internal/telemetry"
	"larder/store/admission"
	"larder/store/block"
	"larder/store/postings"
	"larder/store/storepb"
)

// stageID is a stage of a request. Stages show where its time goes. They overlap, because chunks
// are fetched while frames are sent. Their sum may therefore exceed the duration of the request.
// The wait for headers is also part of the postings stage. In stageFlowControl the request waits
// for its client to read. No budget bounds that stage, because the gateway cannot shorten it.
type stageID int

const (
	stageGate stageID = iota
	stageHeader
	stagePostings
	stageSeries
	stageChunks
	stageSend
	stageFlowControl
	stageCount
)

var stageNames = [stageCount]string{
	"gate", "header", "postings", "series", "chunks", "send", "flow_control",
}

// request is a running call: its identity, turn, current attempt and statistics. The goroutines of
// the request share its accounts, stage times and turn.
type request struct {
	server *Server
	ctx    context.Context
	method string
	tenant string // as limits and turns know it
	asked  asked
	spans  *telemetry.SpanBudget // nil without a bound
	start  time.Time
	turn   *admission.Turn // nil before enter

	postings, seriesPages, chunkPages pagecache.Account
	series, chunks                    *admission.Limiter
	bytes                             *admission.BytesLimiter
	stages                            [stageCount]atomic.Int64
	firstFrame                        time.Duration
	attempt                           attempt
	replans, reshapes                 int // attempts by cause: see mayRepeat
	requeues                          int // attempts that followed a wait for more bytes
	exceeded                          []Exceeded

	byBlock  *blockAccounts // nil unless the request is explained
	progress progress

	// INVARIANT: only the goroutine of the handler writes the fields that follow.
	blocksQueried int
	lazyBlocks    int // with matchers that are checked on the series
	emptyBlocks   int // in which the matchers matched nothing
	setBlocks     int // answered from cached series sets
	postingsCount int64
	planned       postings.Stats
	decoded       block.StreamStats
	records       block.ChunkStats
	sent          storepb.FrameStats
	sentSizes     sizeCounts // chunk bytes of the series sent
	succeeded     bool
}

func (s *Server) newRequest(ctx context.Context, method string, what asked) *request {
	r := &request{
		server: s, method: method,
		tenant: admission.TenantName(admission.TenantOf(ctx)), asked: what, start: time.Now(),
	}
	r.ctx = slots.WithRequest(ctx, r.tenant)
	if n := s.opts.SpansPerRequest; n >= 0 && trace.SpanFromContext(ctx).IsRecording() {
		r.ctx, r.spans = telemetry.WithSpanBudget(r.ctx, int64(cmp.Or(n, spansPerRequest)))
	}
	r.limit()
	requestlog.Describe(ctx, r.describe)
	s.opts.Activity.Begin(r)
	return r
}

// limit replaces the limiters by new ones that count from zero. Work of an earlier attempt may
// continue because other requests wait for it. It counts against the old limiters.
func (r *request) limit() {
	r.series, r.chunks, r.bytes = r.server.limits.For(r.tenant)
	bytes := r.bytes
	// Of the bytes used and the bytes fetched, the larger number counts.
	spend := func(what string) func(touched, fetched int64) error {
		return func(touched, fetched int64) error {
			return bytes.Reserve(what, uint64(max(touched, fetched)))
		}
	}
	r.postings.Spend = spend("postings")
	r.seriesPages.Spend = spend("series")
	r.chunkPages.Spend = spend("chunks")
}

// Names of the calls in metrics.
const (
	methodSeries      = "Series"
	methodLabelNames  = "LabelNames"
	methodLabelValues = "LabelValues"
)

// stage runs f under a span and adds its time to a stage. f records its blocks in times; see
// startSpan.
func (r *request) stage(
	id stageID, span, blocks string, f func(ctx context.Context, times *blockTimes) error,
) error {
	ctx, times, end := r.startSpan(r.ctx, id, span, blocks)
	defer end()
	return f(ctx, times)
}

// waitFor runs f, which waits for a turn, as part of the stage gate.
func (r *request) waitFor(f func(ctx context.Context) error) error {
	return r.stage(stageGate, "store_query_gate_ismyturn", "",
		func(ctx context.Context, _ *blockTimes) error { return f(ctx) })
}

// addStage adds d, which has just passed, to a stage.
func (r *request) addStage(id stageID, d time.Duration) {
	r.stages[id].Add(int64(d))
	r.progress.ran(id, r.start, d)
}

// enter waits until the request may begin. It then has the bytes of a small request, and a place if
// it is a Series request.
func (r *request) enter(kind admission.Kind) error {
	return r.waitFor(func(ctx context.Context) (err error) {
		r.turn, err = r.server.admission.Enter(ctx, r.tenant, kind)
		return err
	})
}

// reserveForPlan reserves n more bytes while planning. Its errors end the attempt: see answer.
func (r *request) reserveForPlan(n int64) error { return r.turn.ReserveForPlan(n) }

// settle reserves n bytes in total before the first frame, those of the plan included. Its errors
// end the attempt: see answer.
func (r *request) settle(n int64) error {
	err := r.turn.SettleTotal(r.attempt.settle(n))
	if err == nil {
		r.turn.ObserveWait()
	}
	return err
}

// maxWaits is how often a request waits for more bytes. Each time it waits for mostly twice as
// many, therefore it soon has enough or is rejected.
const maxWaits = 16

// answer calls try until it returns anything but a *admission.MustWait. For that error it waits for
// the bytes and calls try again. Frames that are sent stay.
//
// INVARIANT: no goroutine of a try runs after it has returned, and none of its plans is open.
func (r *request) answer(try func() error) error {
	for waits := 0; ; waits++ {
		err := try()
		var must *admission.MustWait
		if !errors.As(err, &must) || waits == maxWaits || r.ctx.Err() != nil {
			return err
		}
		r.server.metrics.requeued.WithLabelValues(r.method).Inc()
		r.requeues++
		r.attempt.raise(must)
		r.nextAttempt()
		err = r.waitFor(func(ctx context.Context) error { return r.turn.Wait(ctx, must.Need) })
		if err != nil {
			return err
		}
	}
}

// request is the Reserver of its streams, chunk readers and windows.
var _ block.Reserver = (*request)(nil)

// TryReserve reserves n more bytes if they are free. It does not wait.
func (r *request) TryReserve(n int64) bool { return r.turn.TryReserve(n) }

// Reserve reserves n more bytes that the request needs, spare ones first. It does not wait. Its
// errors end the attempt: see answer.
func (r *request) Reserve(n int64) error {
	missing := r.attempt.reserveSpare(n)
	if missing == 0 && n > 0 {
		return nil
	}
	err := r.turn.Reserve(missing)
	if err != nil {
		r.attempt.releaseSpare(n - missing)
	}
	return err
}

// Release makes n reserved bytes spare. The request keeps them until its end, because it may need
// them again.
func (r *request) Release(n int64) { r.attempt.releaseSpare(n) }

// nextAttempt begins another attempt after one that failed. The accounts keep what the failed one
// has read. Limits count from zero, because they bound the answer.
func (r *request) nextAttempt() {
	r.attempt.next()
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
	// The request waits for the headers of its blocks concurrently. The longest wait counts.
	if d := int64(p.HeaderWait()); d > r.stages[stageHeader].Load() {
		r.stages[stageHeader].Store(d)
		planned := r.progress.stages[stagePostings].from.Load()
		r.progress.stages[stageHeader].from.Store(planned)
		r.progress.stages[stageHeader].until.Store(planned + d)
	}
}

func (r *request) noteSource(src *source) {
	r.decoded.Add(src.stream.Stats())
	r.records.Add(src.chunks.Stats())
}

// finish releases the turn of the request, compares it with its budgets, and records its metrics
// and span attributes. err points to its error.
func (r *request) finish(err *error) {
	r.turn.Close()
	r.compare()
	ended := func(d time.Duration) activity.Ended {
		return r.ended(d, *err)
	}
	r.server.opts.Activity.End(r, time.Since(r.start), *err != nil, ended)
	r.server.names.observe(r.tenant, r.used(), func(label string) {
		r.server.metrics.observe(r, label)
	})
	if f := r.server.opts.Finished; f != nil {
		f(r.finished())
	}
	if sp := trace.SpanFromContext(r.ctx); sp.IsRecording() {
		sp.SetAttributes(r.attributes()...)
		if r.spans != nil && r.spans.Dropped() > 0 {
			sp.SetAttributes(attribute.Int64("larder.spans.dropped", r.spans.Dropped()))
		}
	}
}

func (r *request) finished() Finished {
	f := Finished{
		Method: r.method, Total: time.Since(r.start), FirstFrame: r.firstFrame,
		Stages: make([]time.Duration, stageCount), Series: r.sent.Series,
	}
	for i := range f.Stages {
		f.Stages[i] = time.Duration(r.stages[i].Load())
	}
	return f
}

// used returns how many bytes the request has read and sent.
func (r *request) used() int64 {
	n := r.sent.Bytes
	for _, k := range r.kinds() {
		n += k.acct.TouchedBytes.Load()
	}
	return n
}

// readKind is a kind of reads and its account.
type readKind struct {
	name string
	acct *pagecache.Account
}

func (r *request) kinds() [3]readKind {
	return [...]readKind{
		{"postings", &r.postings},
		{"series", &r.seriesPages},
		{"chunks", &r.chunkPages},
	}
}

// queryStats returns the statistics that a client may ask for. Where Thanos counts ranges, larder
// counts pages.
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

		DataDownloadedSizeSum: post.FetchedBytes.Load() + ser.FetchedBytes.Load() +
			chk.FetchedBytes.Load(),
		GetAllDuration: durationpb.New(time.Duration(r.stages[stagePostings].Load())),
		MergeDuration:  durationpb.New(time.Duration(r.stages[stageSeries].Load())),
	}
}
