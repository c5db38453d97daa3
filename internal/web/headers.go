package web

import "net/http"

// contentPolicy allows a page only its own styles and images: no script, no form and no frame.
// Every answer has it, because a browser may interpret any answer as a page.
const contentPolicy = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; " +
	"form-action 'none'; frame-ancestors 'none'; base-uri 'none'"

// pagePolicy is the policy of larder's own pages, whose forms search on this server.
const pagePolicy = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// withHeaders sets the headers of every answer of the HTTP ports, errors and redirects included. A
// handler may replace a value. Values that --http.config has set are kept.
func withHeaders(next http.Handler) http.Handler {
	defaults := []struct{ name, value string }{
		{"X-Content-Type-Options", "nosniff"},
		{"Content-Security-Policy", contentPolicy},
		{"X-Frame-Options", "DENY"},
		{"Referrer-Policy", "no-referrer"},
		// Answers change all the time, and a shared cache must not serve one client's to another.
		{"Cache-Control", "no-store"},
		{"Cross-Origin-Resource-Policy", "same-origin"},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		for _, d := range defaults {
			if h.Get(d.name) == "" {
				h.Set(d.name, d.value)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// varies adds a Vary header for a request header, "" for none. A cache that honours no-store does
// not need it, but some caches are configured to ignore no-store.
func varies(header string, next http.Handler) http.Handler {
	if header == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", header)
		next.ServeHTTP(w, r)
	})
}

// routes is a mux that lists its patterns. A test walks them all.
type routes struct {
	*http.ServeMux
	patterns []string
}

func newRoutes() *routes { return &routes{ServeMux: http.NewServeMux()} }

func (r *routes) Handle(pattern string, h http.Handler) {
	r.patterns = append(r.patterns, pattern)
	r.ServeMux.Handle(pattern, h)
}

func (r *routes) HandleFunc(pattern string, h http.HandlerFunc) { r.Handle(pattern, h) }
