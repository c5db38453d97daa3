package store

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"larder/indexcache"
	"larder/internal/activity"
	"larder/internal/budget"
	"larder/internal/flight"
	"larder/internal/intake"
	"larder/internal/panics"
	"larder/internal/telemetry"
	"larder/store/admission"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/matcher"
	"larder/store/storepb"
)

// Catalog knows the blocks of the bucket: *catalog.Catalog.
type Catalog interface {
	View() *catalog.View
	// Tombstone marks a block as missing from the bucket.
	Tombstone(id ulid.ULID)
	// Refresh looks for new blocks, at most every few seconds in total.
	Refresh(ctx context.Context) error
}

// Recorder records what Series requests ask for: *warm.Recorder. It must not wait, and must neither
// change nor keep its arguments.
type Recorder interface {
	// Note records that a request has asked blocks for the series that match matchers. without
	// names the labels to be removed.
	Note(blocks []*catalog.Block, matchers []*labels.Matcher, without []string)
}

// Options configure a Server. Catalog and Blocks are required. The zero values of all other options
// work.
type Options struct {
	Catalog Catalog
	// Blocks are the headers, pages and listings that blocks are read through.
	Blocks block.Deps
	// Frames is the pool of response buffers; default: a pool of its own.
	Frames *storepb.FramePool
	// ChunkPageBytes is the page size of Blocks.Chunks in bytes; default 8 KiB. It must match,
	// because the bytes of a window are counted in pages.
	ChunkPageBytes int64
	// Gate bounds the Series requests that run at once. Its zero value is unlimited.
	Gate admission.GateOptions
	// Allowance bounds the bytes that all requests reserve together.
	Allowance admission.AllowanceOptions
	// Messages is the account of request messages and compiled expressions, from the arrival of a
	// request until its end; default: an account of 128 MiB. A request that does not fit is
	// rejected. Compiling one large expression may use twice as much in addition.
	Messages *intake.Account
	// Limits apply to each tenant that Tenants does not name. The zero value is unlimited.
	// SetLimits replaces both.
	Limits  admission.LimitOptions
	Tenants map[string]admission.LimitOptions
	// NamedTenants is the number of tenants that metrics name besides Tenants: those with the most
	// requests and bytes recently. All others are counted as tenant "other". Default 3; negative:
	// none. Each name adds up to 420 series.
	NamedTenants int
	// Matchers is the maximum number of cached regular expressions; 0 or less caches none.
	// Compiling an expression of a thousand alternatives takes about 300 µs, and caching it about
	// 50 KB. The cache is bounded to 64 KiB per entry on average.
	Matchers int
	// LabelAnswers caches the answers of blocks to label requests; nil caches none.
	LabelAnswers *indexcache.LabelAnswers
	// Recorder records what Series requests ask for; nil records nothing.
	Recorder Recorder
	// SendStallTimeout is the time after which a Series request is aborted if its client does not
	// read a frame; default 1 minute, negative: never. It frees the request's place and bytes. A
	// short time-out sooner resolves gateways that wait for each other because one client reads
	// them in turn. But it also aborts clients that merge lazily: these read nothing from one store
	// while they wait for another.
	SendStallTimeout time.Duration
	// OnStall, if set, is called with the context of each request that was aborted for this reason.
	// grpc keeps the queued part of the answer, up to a frame and 64 KiB, until the client reads it
	// or disconnects.
	OnStall func(ctx context.Context)
	// OneAhead limits what is read before a Series request needs it: windows of chunks are small at
	// first, and one is fetched while another is sent. Default false: all chunks of a small answer
	// are read at once, and several windows of a large one. With true cold answers take several
	// times as long, and less memory and fewer concurrent reads.
	OneAhead bool
	// Windows bounds the windows of chunks of a Series request: one that is sent, and others that
	// are read ahead. Default 8. More answer large cold requests sooner if the network is faster
	// than that many reads, and reserve more memory.
	Windows int
	// IgnoreSizes is called if the bucket's answers were found to state wrong object sizes. From
	// then on readers must not compare these sizes. If it is nil, such a bucket cannot be read.
	IgnoreSizes func()
	// Budgets are the latency budgets that requests are compared with; nil: none.
	Budgets *budget.Current
	// Clamp narrows requested and advertised time ranges, in milliseconds, to the served range
	// (--min-time, --max-time). It is called at every use because that range may be relative to
	// now. nil clamps nothing.
	Clamp func(minT, maxT int64) (int64, int64)

	// Refuse returns why the process must not answer now, "" if it may. Requests then fail with
	// Unavailable. It must not wait. nil: it may always answer.
	Refuse func() string

	// Activity is told about all requests. nil: nothing is.
	Activity *activity.Log
	// Finished, if set, is called once for each request that has ended. It must not wait.
	Finished func(Finished)

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Tracer     trace.Tracer
	// SpansPerRequest bounds the spans of a traced request besides its own. Default 512; negative:
	// no bound. Reads beyond it are counted in attributes of the request's span only.
	SpansPerRequest int
}

// Finished describes a request that has ended.
type Finished struct {
	Method string
	// Total is its time. FirstFrame is the time until its first frame, 0 if it sent none.
	Total, FirstFrame time.Duration
	// Stages are the times of its stages, in the order of StageNames. Stages overlap.
	Stages []time.Duration
	// Series is the number of series sent.
	Series int64
}

// StageNames returns the stages of a request.
func StageNames() []string { return slices.Clone(stageNames[:]) }

// Server implements the StoreAPI and Info services. It retains no bytes of the bucket:
// Options.Blocks has the caches that requests share, and the bytes of a request are released at its
// end.
type Server struct {
	storepb.UnimplementedStoreServer
	storepb.UnimplementedInfoServer

	opts      Options
	log       *slog.Logger
	tracer    trace.Tracer
	metrics   *metrics
	panics    *panics.Guard
	limits    *admission.Limits
	admission *admission.Controller
	matchers  *matcher.Cache
	compiler  *matcher.Compiler
	stalls    *stalls
	names     *tenantNames

	outsiders    outsiders
	overruns     overruns
	labelFlights flight.Inline[indexcache.AnswerKey, *indexcache.LabelAnswer]

	mu     sync.Mutex // guards blocks; held for map operations only
	blocks map[ulid.ULID]*block.Block
}

// New returns a server.
func New(opts Options) *Server {
	if opts.Frames == nil {
		opts.Frames = storepb.NewFramePool()
	}
	if opts.ChunkPageBytes <= 0 {
		opts.ChunkPageBytes = 8 << 10
	}
	if opts.Windows <= 0 {
		opts.Windows = defaultWindows
	}
	if opts.Clamp == nil {
		opts.Clamp = func(minT, maxT int64) (int64, int64) { return minT, maxT }
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Tracer == nil {
		opts.Tracer = noop.NewTracerProvider().Tracer("larder")
	}
	if opts.Messages == nil {
		opts.Messages = intake.NewAccount(0, opts.Registerer)
	}
	opts.Blocks.Corruptions = telemetry.NewCorruptions(opts.Registerer)
	names := newTenantNames(opts.NamedTenants, opts.Registerer)
	s := &Server{
		opts: opts, log: opts.Logger, tracer: opts.Tracer,
		metrics:  newMetrics(opts.Registerer, names, opts.Budgets),
		panics:   panics.New("request", opts.Logger, opts.Registerer),
		limits:   admission.NewLimits(opts.Limits, opts.Tenants, opts.Registerer),
		matchers: matcher.NewCache(opts.Matchers, opts.Registerer),
		compiler: matcher.NewCompiler(opts.Messages),
		names:    names,
		blocks:   map[ulid.ULID]*block.Block{},
	}
	s.labelFlights.Waits = func(ctx, starter context.Context) (ended func()) {
		return telemetry.AwaitShared(ctx, "labels_shared", starter)
	}
	names.own(s.limits.NameTenants(names.first(),
		func(tenant string, count func(label string)) { names.observe(tenant, -1, count) }))
	names.keep(opts.Tenants)
	s.opts.Blocks.Panics, s.opts.Blocks.Logger = s.panics, s.log
	s.admission = admission.New(opts.Gate, opts.Allowance, s.limits, opts.Registerer)
	s.stalls = newStalls(opts.SendStallTimeout, s.admission.KeepsOthersWaiting, opts.OnStall,
		opts.Logger, opts.Registerer)
	return s
}

// SetLimits replaces the limits of tenants. Running requests keep the limits they started with;
// waiting requests get the new ones. The caller must not change tenants afterwards.
func (s *Server) SetLimits(
	others admission.LimitOptions, tenants map[string]admission.LimitOptions,
) {
	s.admission.SetLimits(others, tenants)
	s.names.keep(tenants)
}

func (s *Server) clamp(minT, maxT int64) (int64, int64) { return s.opts.Clamp(minT, maxT) }

// block returns the reader of a block, and creates it if needed.
func (s *Server) block(meta *catalog.Block) *block.Block {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.blocks[meta.ID]
	if b == nil || b.Meta().Number != meta.Number {
		b = block.New(meta, &s.opts.Blocks)
		s.blocks[meta.ID] = b
	}
	return b
}

// ViewChanged drops the readers of blocks that are not in view. The caller calls it after every
// change of the catalog's view. Running requests keep the readers that they use.
func (s *Server) ViewChanged(view *catalog.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.blocks {
		if view.ByID(id) == nil {
			delete(s.blocks, id)
		}
	}
	s.outsiders.retain(view)
	s.metrics.blocksLoaded.Set(float64(len(view.Blocks)))
}
