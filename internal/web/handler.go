package web

import (
	"log/slog"
	"net/http"
	"net/http/pprof"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
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
	// Flags are shown by /api/v1/status/flags. Secrets must be gone from them.
	Flags map[string]string
	// Label is the external label whose value heads a group of blocks; "" heads it with all of them.
	Label string
	// ExternalPrefix is put before the links of pages, for a reverse proxy that takes it away again; requests come without it. If it is
	// empty, the request header named PrefixHeader says it; "" is none. With neither, links are relative.
	ExternalPrefix, PrefixHeader string
	// DisableCORS leaves out the headers that let scripts of every origin read the API.
	DisableCORS bool
	// Started is when the process started.
	Started time.Time
	// Logger is where marks and panics are reported; nil discards.
	Logger *slog.Logger
}

// Handler serves everything.
//
// /debug/pprof/cmdline is left to the index, which knows no such profile, as in Thanos: an inline --objstore.config holds the bucket's
// secrets.
func Handler(o Options) http.Handler {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /-/healthy", o.Probe.serveHealthy)
	mux.HandleFunc("GET /-/ready", o.Probe.serveReady)
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{EnableOpenMetrics: true}))

	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol) // go tool pprof posts to it
	mux.HandleFunc("GET /debug/fgprof", serveFgprof)

	if !o.Disable {
		mux.Handle(apiPrefix, newAPI(o))
		newPages(o).register(mux)
	}
	return logPanics(mux, o.Logger)
}

// logPanics logs a panic of a handler and ends the connection, as the server would, which logs it where failed handshakes go.
func logPanics(next http.Handler, logger *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				panic(p)
			default:
				logger.Error("an HTTP request panicked", "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(w, r)
	})
}
