package web

import (
	"html/template"
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler serves /-/healthy, /-/ready, /metrics, /debug/pprof/ and a page at / that links them.
//
// /debug/pprof/cmdline is left out, as in Thanos: an inline --objstore.config holds the bucket's secrets.
func Handler(probe *Probe, gatherer prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /-/healthy", probe.serveHealthy)
	mux.HandleFunc("GET /-/ready", probe.serveReady)
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{EnableOpenMetrics: true}))

	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", http.NotFound)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol) // go tool pprof posts to it

	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = index.Execute(w, struct{ Ready bool }{probe.Ready()}) // as above: only a client that went away
	})
	return mux
}

var index = template.Must(template.New("index").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>larder</title></head><body>
<h1>larder store</h1>
<p>{{if .Ready}}Ready.{{else}}Not ready.{{end}}</p>
<ul>
<li><a href="-/healthy">-/healthy</a></li>
<li><a href="-/ready">-/ready</a></li>
<li><a href="metrics">metrics</a></li>
<li><a href="debug/pprof/">debug/pprof/</a></li>
</ul></body></html>
`))
