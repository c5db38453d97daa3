package web

import (
	"log/slog"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"larder/internal/panics"
)

// Options say what is served. Probe and Gatherer are required.
type Options struct {
	Probe    *Probe
	Gatherer prometheus.Gatherer

	// Disable leaves out the pages and /api/v1/. What follows has no effect then.
	Disable bool
	// Blocks are what pages and API show; required unless Disable is set.
	Blocks Blocks
	// Marker writes what POST /api/v1/blocks/mark asks for; nil refuses it.
	Marker Marker
	// DebugElsewhere leaves /debug/ and the marking of blocks to DebugHandler, on an address of its
	// own: here they are not found then.
	DebugElsewhere bool
	// Flags are shown by /api/v1/status/flags. Secrets must be gone from them.
	Flags map[string]string
	// Label is the external label whose value heads a group of blocks; "" heads it with all of
	// them.
	Label string
	// ExternalPrefix is put before the links of pages, for a reverse proxy that takes it away
	// again; requests come without it. If it is empty, the request header named PrefixHeader says
	// it; "" is none. With neither, links are relative.
	ExternalPrefix, PrefixHeader string
	// AllowedHosts are names under which clients reach this server besides those that no other site
	// can have, as ParseHost returns them. OwnHosts are names of the machine. What changes
	// something or tells more of the process is refused under other names; pages and API are too,
	// once AllowedHosts are given.
	AllowedHosts, OwnHosts []string
	// DisableCORS leaves out the headers that let scripts of every origin read the API.
	DisableCORS bool
	// Allowances are what the start gave to each use of memory, under the names of its log. The
	// page shows what is held of them.
	Allowances []Allowance
	// Started is when the process started.
	Started time.Time
	// Logger is where marks and panics are reported; nil discards.
	Logger *slog.Logger
	// Registerer takes the count of panics; nil is none.
	Registerer prometheus.Registerer
}

// Handler serves everything, but for what DebugElsewhere leaves out.
func Handler(o Options) http.Handler {
	o.setDefaults()
	return o.guard(o.mainRoutes())
}

func (o *Options) mainRoutes() *routes {
	mux := newRoutes()
	mux.HandleFunc("GET /-/healthy", o.Probe.serveHealthy)
	mux.HandleFunc("GET /-/ready", o.Probe.serveReady)
	scrapes := &places{n: maxScrapes}
	mux.Handle(
		"GET /metrics",
		scrapes.bound(
			promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{EnableOpenMetrics: true}),
		),
	)
	if !o.DebugElsewhere {
		o.registerDebug(mux)
	}
	if !o.Disable {
		pages := &places{n: maxShown}
		shown := func(next http.Handler) http.Handler { return o.hosts().guardShown(pages.bound(next)) }
		mux.Handle(apiPrefix, shown(newAPI(*o, !o.DebugElsewhere)))
		newPages(*o).register(mux, shown)
	}
	return mux
}

// DebugHandler serves what changes something, or tells more of the process than everybody needs to
// know: /debug/, and unless Disable is set /api/v1/blocks/mark.
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

// registerDebug adds what tells of the process.
//
// /debug/pprof/cmdline is left to the index, which knows no such profile, as in Thanos: an inline
// --objstore.config holds the bucket's secrets.
func (o *Options) registerDebug(mux *routes) {
	places := atMost(maxDebug)
	busy := func(next http.Handler) http.Handler { return o.hosts().guard(places(next)) }
	get := func(path string, serve http.HandlerFunc) { mux.Handle("GET "+path, busy(boundSeconds(serve))) }
	get("/debug/pprof/", pprof.Index)
	get("/debug/pprof/profile", pprof.Profile)
	get("/debug/pprof/trace", pprof.Trace)
	get("/debug/pprof/symbol", pprof.Symbol)
	// go tool pprof posts to it
	mux.Handle("POST /debug/pprof/symbol", busy(http.HandlerFunc(pprof.Symbol)))
	get("/debug/fgprof", serveFgprof)
}

// containPanics notes a panic of a handler and ends the connection, as the server would, which logs
// it where failed handshakes go.
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
