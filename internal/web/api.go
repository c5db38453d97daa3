package web

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/klauspost/compress/gzhttp"
)

const (
	apiPrefix = "/api/v1/"
	markPath  = "blocks/mark" // below apiPrefix
)

// api serves /api/v1/ with the answers, errors and headers of Thanos.
type api struct {
	Options
	routes  map[string]route // by path below apiPrefix
	options http.Handler
	origin  *http.CrossOriginProtection
}

type route struct {
	method string
	http.Handler
}

// newAPI returns the API. marks adds the path that marks blocks.
func newAPI(o Options, marks bool) *api {
	a := &api{Options: o, origin: http.NewCrossOriginProtection()}
	runtimeInfo := newRuntimeInfo(o.Started)
	handler := func(serve http.HandlerFunc) http.Handler {
		return gzhttp.GzipHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a.setCORS(w)
			serve(w, r)
		}))
	}
	get := func(serve http.HandlerFunc) route { return route{http.MethodGet, handler(serve)} }
	a.options = handler(
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
	)
	a.routes = map[string]route{
		"blocks": get(a.serveBlocks),
		"status/flags": get(
			func(w http.ResponseWriter, _ *http.Request) { respond(w, a.Flags) },
		),
		"status/runtimeinfo": get(
			func(w http.ResponseWriter, _ *http.Request) { respond(w, runtimeInfo()) },
		),
		"status/buildinfo": get(
			func(w http.ResponseWriter, _ *http.Request) { respond(w, buildInfo()) },
		),
	}
	if marks {
		a.routes[markPath] = route{http.MethodPost, handler(a.serveMark)}
	}
	return a
}

// ServeHTTP answers OPTIONS for every path, same as Thanos. A mux would answer 405 for paths that
// do not exist.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	route, known := a.routes[strings.TrimPrefix(r.URL.Path, apiPrefix)]
	switch method := r.Method; {
	case method == http.MethodOptions:
		a.options.ServeHTTP(w, r)
	case !known:
		http.NotFound(w, r)
	case method == route.method, method == http.MethodHead && route.method == http.MethodGet:
		route.ServeHTTP(w, r)
	default:
		w.Header().Set("Allow", route.method+", OPTIONS")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
	}
}

func (a *api) setCORS(w http.ResponseWriter) {
	if a.DisableCORS {
		return
	}
	h := w.Header()
	h.Set(
		"Access-Control-Allow-Headers",
		"Accept, Accept-Encoding, Authorization, Content-Type, Origin",
	)
	h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "Date")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
}

// respond sends data, which must be encodable as JSON.
func respond(w http.ResponseWriter, data any) {
	send(w, http.StatusOK, struct {
		Status string `json:"status"`
		Data   any    `json:"data"`
	}{"success", data})
}

// errorType is Thanos's name for a kind of error.
type errorType string

const (
	badData  errorType = "bad_data"
	internal errorType = "internal"
)

func respondError(w http.ResponseWriter, code int, kind errorType, message string) {
	send(w, code, struct {
		Status    string    `json:"status"`
		ErrorType errorType `json:"errorType"`
		Error     string    `json:"error"`
	}{"error", kind, message})
}

func send(w http.ResponseWriter, code int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b) // fails only if the client has disconnected
}
