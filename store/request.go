package store

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"larder/internal/pagecache"
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

// request is what one running call adds up: counters by kind, stage times, limits and its reservation of bytes. Its accounts and stage
// times are shared by its goroutines.
type request struct {
	server *Server
	ctx    context.Context
	method string
	tenant string
	start  time.Time

	postings, seriesPages, chunkPages pagecache.Account
	series, chunks                    *Limiter
	bytes                             *BytesLimiter
	stages                            [stageCount]atomic.Int64
	firstFrame                        time.Duration

	mu          sync.Mutex // guards reservation
	reservation *Reservation
	// least is what the request reserves at least: what it could not get by growing, before it was put back into the queue.
	least int64

	// What follows is written by the handler's goroutine alone.
	queried       []*catalog.Block // of the last plan
	lastSeries    []byte           // labels of the last series written; never nil, for they may be none
	blocksQueried int
	lazyBlocks    int // in which matchers stayed pending
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
	r := &request{server: s, ctx: ctx, method: method, tenant: s.tenants.label(TenantOf(ctx)), start: time.Now(), lastSeries: []byte{}}
	r.series, r.chunks, r.bytes = s.limits.For(r.tenant)
	// Bytes count when they are used or fetched, whichever is more.
	spend := func(what string) func(touched, fetched int64) error {
		return func(touched, fetched int64) error { return r.bytes.Reserve(what, uint64(max(touched, fetched))) }
	}
	r.postings.Spend = spend("postings")
	r.seriesPages.Spend = spend("series")
	r.chunkPages.Spend = spend("chunks")
	return r
}

// methodSeries is the name of the Series call in metrics.
const methodSeries = "Series"

// defaultTenant is the tenant of requests that name none.
const defaultTenant = "default-tenant"

// TenantOf returns the tenant that a gRPC request names, as its client spells it.
func TenantOf(ctx context.Context) string {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if t := md.Get("thanos-tenant"); len(t) > 0 && t[0] != "" {
			return t[0]
		}
	}
	return defaultTenant
}

const (
	// maxTenants bounds the tenants that metrics tell apart: whoever may send requests chooses their names.
	maxTenants = 1000
	// maxTenantBytes bounds the name of one.
	maxTenantBytes = 128
	// otherTenant stands in metrics for all that are too many.
	otherTenant = "other"
)

// tenants are the tenants that metrics tell apart.
type tenants struct {
	mu    sync.Mutex // guards known; held for map operations alone
	known map[string]struct{}
}

// label returns what a tenant is called in metrics.
func (t *tenants) label(name string) string {
	if len(name) > maxTenantBytes {
		name = name[:maxTenantBytes]
	}
	name = strings.ToValidUTF8(name, "\uFFFD")
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.known[name]; ok {
		return name
	}
	if len(t.known) >= maxTenants {
		return otherTenant
	}
	if t.known == nil {
		t.known = map[string]struct{}{}
	}
	t.known[strings.Clone(name)] = struct{}{}
	return name
}

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

// reserve waits for leave to hold n bytes. It is called once, before the request holds anything.
func (r *request) reserve(n int64) error {
	res, err := r.server.allowance.Reserve(r.ctx, n)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reservation = res
	return nil
}

// tryGrow asks for leave to hold n more bytes, without waiting.
func (r *request) tryGrow(n int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reservation != nil && r.reservation.TryGrow(n)
}

// grow asks for leave to hold n more bytes without which the request cannot go on. It does not wait either.
func (r *request) grow(n int64) error {
	r.mu.Lock()
	ok := r.reservation != nil && r.reservation.Extend(n)
	r.mu.Unlock()
	if ok {
		return nil
	}
	return &outgrownError{n}
}

// outgrownError says that a request needs more bytes than it has reserved and than are free.
type outgrownError struct{ bytes int64 }

func (e *outgrownError) Error() string {
	return fmt.Sprintf("%d more bytes do not fit into the request allowance (--store.request-bytes)", e.bytes)
}

// GRPCStatus is what the client gets unless the request begins again: there may be room at another time.
func (e *outgrownError) GRPCStatus() *status.Status {
	return status.New(codes.ResourceExhausted, e.Error())
}

// requeue reports whether err is that the request has outgrown its reservation, and prepares it to begin again: with nothing, in the queue,
// for twice as much. It must not have sent anything. A request that has held as much as there is for one is refused.
//
// INVARIANT: what is reserved next is more than before, so that this ends.
func (r *request) requeue(err error) bool {
	var outgrown *outgrownError
	if !errors.As(err, &outgrown) || r.ctx.Err() != nil {
		return false
	}
	r.mu.Lock()
	var held int64
	if r.reservation != nil {
		held = r.reservation.Bytes()
	}
	r.mu.Unlock()
	most := r.server.allowance.most()
	if held >= most {
		return false
	}
	r.least = min(max(2*held, held+outgrown.bytes), most)
	r.server.metrics.requeued.WithLabelValues(r.method).Inc()
	r.replan()
	return true
}

// replan forgets what a vain attempt has noted, but for the series that are written, and gives back what it was allowed. Its goroutines are
// over. What it has read stays in the accounts, but not in the limits: those are about the answer.
func (r *request) replan() {
	r.queried = nil
	r.series, r.chunks, r.bytes = r.server.limits.For(r.tenant)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reservation != nil {
		r.reservation.Release()
		r.reservation = nil
	}
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
	r.mu.Lock()
	if r.reservation != nil {
		r.reservation.Release()
	}
	r.mu.Unlock()
	r.server.metrics.observe(r)
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

// contained is block.Contained: a goroutine's panic is its request's Internal error.
func contained(f func() error) func() error { return block.Contained(f) }

// recovered turns a panic of a handler into an Internal error, and counts contained ones.
func (s *Server) recovered(err *error) {
	if p := recover(); p != nil {
		*err = &block.PanicError{Value: p, Stack: debug.Stack()}
	}
	var pe *block.PanicError
	if errors.As(*err, &pe) {
		s.metrics.panics.Inc()
		s.log.Error("request panicked", "panic", fmt.Sprint(pe.Value), "stack", string(pe.Stack))
		*err = status.Error(codes.Internal, pe.Error())
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
		pe      *block.PanicError
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
