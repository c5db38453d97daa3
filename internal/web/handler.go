package web

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"larder/internal/activity"
	"larder/internal/panics"
	"larder/internal/telemetry"
)

// Options configures Handler and DebugHandler. Probe and Gatherer are required.
type Options struct {
	Probe    *Probe
	Gatherer prometheus.Gatherer

	// Disable removes the web pages and /api/v1/. Most fields below have no effect then.
	Disable bool
	// Blocks provides the blocks for pages and API. It is required unless Disable is set.
	Blocks Blocks
	// Activity knows running, slow and failed requests; nil shows none.
	Activity *activity.Log
	// Serving says what is served now: bucket, prefix, rules, time filter. nil: nothing is shown.
	Serving func() []Fact
	// History has the figures of the last hour. The caller runs it. nil: figures are those since
	// the start.
	History *History
	// Explainer answers /debug/explain. nil: it is not served.
	Explainer Explainer
	// Marker writes marks for POST /api/v1/blocks/mark. nil rejects these requests.
	Marker Marker
	// Shard serves the paths below /-/shard/; nil is none.
	Shard http.Handler
	// ShardStatus returns the shard for the overview, nil while it is starting or stopping. nil:
	// blocks are not split.
	ShardStatus func(context.Context) *Shard
	// DebugElsewhere removes /debug/ and the marking of blocks from Handler. DebugHandler serves
	// them on an address of its own.
	DebugElsewhere bool
	// Flags is the answer of /api/v1/status/flags. It must not contain secrets.
	Flags map[string]string
	// Label is the external label whose value is the heading of a group of blocks. "" uses all
	// external labels.
	Label string
	// ExternalPrefix is the prefix of the links of pages, for a reverse proxy that removes it from
	// requests. If it is empty, the request header named PrefixHeader is the prefix; "" is none.
	// With neither, links are relative.
	ExternalPrefix, PrefixHeader string
	// AllowedHosts are further host names of this server, as ParseHost returns them. OwnHosts are
	// names of the machine. Names that no other site can have are always allowed. With other names,
	// /debug/ and the marking of blocks are rejected; if AllowedHosts is set, so are pages and API.
	AllowedHosts, OwnHosts []string
	// DisableCORS omits the headers that let scripts of every origin read the API.
	DisableCORS bool
	// Allowances are the limits of memory, by their names in the log. The overview shows how much
	// of each is in use.
	Allowances []Allowance
	// Started is when the process started.
	Started time.Time
	// Logger logs marks and panics; nil discards.
	Logger *slog.Logger
	// Registerer registers the counter of panics; nil is none.
	Registerer prometheus.Registerer
}

// Handler serves everything, except what DebugElsewhere removes.
func Handler(o Options) http.Handler {
	o.setDefaults()
	return o.guard(o.mainRoutes())
}

func (o *Options) mainRoutes() *routes {
	mux := newRoutes()
	mux.HandleFunc("GET /-/healthy", o.Probe.serveHealthy)
	mux.HandleFunc("GET /-/ready", o.Probe.serveReady)
	scrapes := &places{n: maxScrapes}
	metrics := promhttp.HandlerFor(
		telemetry.Exposed(o.Gatherer), promhttp.HandlerOpts{EnableOpenMetrics: true},
	)
	mux.Handle("GET /metrics", scrapes.bound(metrics))
	if o.Shard != nil {
		peers := &places{n: maxShard}
		mux.Handle(shardPrefix, o.hosts().guard(peers.bound(o.Shard)))
	}
	if !o.DebugElsewhere {
		o.registerDebug(mux)
	}
	if !o.Disable {
		pages := &places{n: maxShown}
		shown := func(next http.Handler) http.Handler {
			return o.hosts().guardShown(pages.bound(next))
		}
		mux.Handle(apiPrefix, shown(newAPI(*o, !o.DebugElsewhere)))
		newPages(*o).register(mux, shown)
	}
	return mux
}

// DebugHandler serves what changes blocks or reveals details of the process: /debug/, and unless
// Disable is set /api/v1/blocks/mark.
func DebugHandler(o Options) http.Handler {
	o.setDefaults()
	return o.guard(o.debugRoutes())
}

func (o *Options) debugRoutes() *routes {
	mux := newRoutes()
	o.registerDebug(mux)
	if !o.Disable {
		mux.Handle(apiPrefix+markPath, newAPI(*o, true))
	}
	return mux
}

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func (o *Options) hosts() *hosts { return &hosts{given: o.AllowedHosts, own: o.OwnHosts} }

func (o *Options) guard(next http.Handler) http.Handler {
	return containPanics(withHeaders(inTime(next)), panics.New("http", o.Logger, o.Registerer))
}

// registerDebug registers /debug/.
//
// /debug/pprof/cmdline is not served, same as in Thanos, because an inline --objstore.config
// contains the secrets of the bucket.
func (o *Options) registerDebug(mux *routes) {
	places := atMost(maxDebug)
	busy := func(next http.Handler) http.Handler { return o.hosts().guard(places(next)) }
	get := func(path string, serve http.HandlerFunc) {
		mux.Handle("GET "+path, busy(boundSeconds(serve)))
	}
	get("/debug/pprof/", pprof.Index)
	get("/debug/pprof/profile", pprof.Profile)
	get("/debug/pprof/trace", pprof.Trace)
	get("/debug/pprof/symbol", pprof.Symbol)
	// go tool pprof posts to it
	mux.Handle("POST /debug/pprof/symbol", busy(http.HandlerFunc(pprof.Symbol)))
	get("/debug/fgprof", serveFgprof)
	if o.Explainer != nil {
		p := newPages(*o)
		p.alone = o.DebugElsewhere || o.Disable
		get("/debug/explain", p.serveExplain)
	}
}

// containPanics counts and logs a panic of a handler and closes the connection. net/http would also
// close it, but would log the panic at debug level, with failed handshakes.
func containPanics(next http.Handler, guard *panics.Guard) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				panic(p)
			default:
				_ = guard.Caught(p, "path", r.URL.Path)
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(w, r)
	})
}
