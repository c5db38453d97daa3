package store

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"larder/internal/intake"
	"larder/internal/panics"
	"larder/internal/telemetry"
	"larder/store/admission"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/matcher"
	"larder/store/storepb"
)

// Catalog says what blocks there are: *catalog.Catalog.
type Catalog interface {
	View() *catalog.View
	// Tombstone notes that a block was found missing from the bucket.
	Tombstone(id ulid.ULID)
	// Refresh looks for new blocks, at most every few seconds, whoever asks.
	Refresh(ctx context.Context) error
}

// Recorder is told what Series requests ask for: *warm.Recorder. It must not wait, and must neither
// change nor keep what it is given.
type Recorder interface {
	// Note is called with blocks that a request has asked for the series that match matchers, with
	// the names of the labels to be removed.
	Note(blocks []*catalog.Block, matchers []*labels.Matcher, without []string)
}

// Options say what a Server serves and within which bounds. Catalog and Blocks are required; the
// rest has working zero values.
type Options struct {
	Catalog Catalog
	// Blocks are the headers, pages and listings that blocks are read through.
	Blocks block.Deps
	// Frames lends the buffers of responses; default: a pool of its own.
	Frames *storepb.FramePool
	// ChunkPageBytes is the page size of Blocks.Chunks in bytes; default 8 KiB. Windows are counted
	// in it.
	ChunkPageBytes int64
	// Gate bounds the Series requests that run at once; its zero value lets all run.
	Gate admission.GateOptions
	// Allowance bounds the bytes that requests hold together.
	Allowance admission.AllowanceOptions
	// Messages is the account of the messages of all requests, and of what their expressions
	// compile to, from their arrival to their end; default one of 128 MiB. A request that needs
	// more is refused. Compiling one large expression may take twice as much besides.
	Messages *intake.Account
	// Limits are those of every tenant that Tenants does not name; the zero value bounds nothing.
	// SetLimits replaces both.
	Limits  admission.LimitOptions
	Tenants map[string]admission.LimitOptions
	// NamedTenants is how many tenants metrics name besides Tenants: those with the most requests
	// and bytes of late. The others are counted together, as tenant other. Default 3; negative:
	// none.
	NamedTenants int
	// Matchers is the number of compiled regular expressions that are kept for the requests to
	// come; 0 or less keeps none. To compile one of a thousand alternatives takes some 300 µs, and
	// to keep it some 50 KB. All together keep at most 64 KiB for each that may be.
	Matchers int
	// Recorder is told what Series requests ask for; nil: nobody is.
	Recorder Recorder
	// SendStallTimeout ends a Series request whose client leaves a frame of its answer unread for
	// so long, so that what it holds is free for others; default 1 minute, negative: never. The
	// less, the sooner gateways that are read by one client in turn, and wait for each other's
	// bytes, go on; but a client that merges lazily reads nothing from one store while it waits for
	// another.
	SendStallTimeout time.Duration
	// OnStall, if set, is called with the context of a request that was ended so: grpc holds what
	// it has taken of the answer, up to a frame and 64 KiB, until the client takes it or goes away.
	OnStall func(ctx context.Context)
	// IgnoreSizes is called when answers of the bucket were found to state sizes of objects that
	// are not: from then on readers must not compare them. nil: such a bucket cannot be read.
	IgnoreSizes func()
	// Clamp narrows requested and advertised time ranges to what is served, by --min-time and
	// --max-time, evaluated at every use; nil clamps nothing.
	Clamp func(minT, maxT int64) (int64, int64)

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Tracer     trace.Tracer
}

// Server is the StoreAPI and Info service. It holds no bytes of the bucket: what requests share
// lies in Options.Blocks, what one request holds ends with it.
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

	mu     sync.Mutex // guards blocks; held for map operations alone
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
		metrics:  newMetrics(opts.Registerer, names),
		panics:   panics.New("request", opts.Logger, opts.Registerer),
		limits:   admission.NewLimits(opts.Limits, opts.Tenants, opts.Registerer),
		matchers: matcher.NewCache(opts.Matchers, opts.Registerer),
		compiler: matcher.NewCompiler(opts.Messages),
		names:    names,
		blocks:   map[ulid.ULID]*block.Block{},
	}
	names.own(s.limits.NameTenants(
		names.first(),
		func(tenant string, count func(label string)) { names.observe(tenant, -1, count) },
	))
	names.keep(opts.Tenants)
	s.opts.Blocks.Panics = s.panics
	s.admission = admission.New(opts.Gate, opts.Allowance, s.limits, opts.Registerer)
	s.stalls = newStalls(
		opts.SendStallTimeout, s.admission.KeepsOthersWaiting, opts.OnStall, opts.Logger,
		opts.Registerer,
	)
	return s
}

// SetLimits replaces the limits of tenants. Requests that run keep those that they began with;
// those that wait go by the new ones. Nobody may change tenants afterwards.
func (s *Server) SetLimits(
	others admission.LimitOptions, tenants map[string]admission.LimitOptions,
) {
	s.admission.SetLimits(others, tenants)
	s.names.keep(tenants)
}

func (s *Server) clamp(minT, maxT int64) (int64, int64) { return s.opts.Clamp(minT, maxT) }

// block returns the reader of a block.
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

// ViewChanged forgets the readers of blocks that left. It is to be called after every change of the
// catalog's view. Requests that still use such a block are not disturbed.
func (s *Server) ViewChanged(old, cur *catalog.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.blocks {
		if cur.ByID(id) == nil {
			delete(s.blocks, id)
		}
	}
	s.metrics.blocksLoaded.Set(float64(len(cur.Blocks)))
}
