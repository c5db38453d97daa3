package web

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// wantHeaders returns the headers of every answer.
func wantHeaders() map[string]string {
	return map[string]string{
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
		"Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Content-Security-Policy":      contentPolicy,
	}
}

// TestHeadersOfEveryRoute requests every registered route of both ports over a real connection,
// including errors and redirects.
func TestHeadersOfEveryRoute(t *testing.T) {
	o := Options{
		Probe: NewProbe(nil, nil), Gatherer: prometheus.NewRegistry(), Blocks: two(),
		Marker: &fakeMarker{}, PrefixHeader: "X-Forwarded-Prefix",
	}
	for port, tc := range map[string]struct {
		handler  http.Handler
		patterns []string
	}{
		"main":  {Handler(o), o.mainRoutes().patterns},
		"debug": {DebugHandler(o), o.debugRoutes().patterns},
	} {
		t.Run(port, func(t *testing.T) {
			srv := httptest.NewServer(tc.handler)
			defer srv.Close()
			asked := askRoutes(t, srv, o, tc.patterns)
			codes := []int{200, 204, 400, 404, 405}
			if port == "main" {
				codes = append(codes, 301, 503)
			}
			for _, code := range codes {
				if !slices.Contains(asked, code) {
					t.Errorf("no answer has code %d, got %v", code, asked)
				}
			}
		})
	}
}

// askRoutes requests each pattern with its method and with another one, and paths that do not
// exist. It returns the status codes.
func askRoutes(t *testing.T, srv *httptest.Server, o Options, patterns []string) (codes []int) {
	t.Helper()
	ask := func(method, path string) {
		t.Helper()
		codes = append(codes, askForHeaders(t, srv, method, path))
	}
	for _, pattern := range patterns {
		method, path, ok := strings.Cut(pattern, " ")
		if !ok {
			method, path = http.MethodGet, pattern
		}
		path = strings.TrimSuffix(path, "{$}")
		if strings.HasPrefix(path, "/debug/") {
			ask(method, path+"?seconds=1000")
			path += "?seconds=1"
		}
		ask(method, path)
		ask(http.MethodDelete, path)
	}
	for path, route := range newAPI(o, true).routes {
		ask(route.method, apiPrefix+path)
		ask(http.MethodPut, apiPrefix+path)
		ask(http.MethodOptions, apiPrefix+path)
	}
	ask(http.MethodPost, apiPrefix+markPath+"?action=DELETION&id="+idA.String())
	for _, path := range []string{
		"/nowhere", "//blocks", apiPrefix + "nowhere", "/debug/pprof", "/debug/pprof/nothing",
		"/-/ready/x",
	} {
		ask(http.MethodGet, path)
	}
	return codes
}

func askForHeaders(t *testing.T, srv *httptest.Server, method, path string) (code int) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := srv.Client().Transport.RoundTrip(r) // does not follow redirects
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Error(err)
	}
	_ = resp.Body.Close()
	want := wantHeaders()
	served := resp.StatusCode == 200 || resp.StatusCode == 204
	api := resp.Header.Get("Access-Control-Allow-Origin") != ""
	switch {
	case api:
		want["Cross-Origin-Resource-Policy"] = "cross-origin"
	case served && !strings.HasPrefix(path, "/debug/pprof/") && method == http.MethodGet &&
		strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html"):
		// larder's own pages have forms.
		want["Content-Security-Policy"] = strings.Replace(
			want["Content-Security-Policy"], "form-action 'none'", "form-action 'self'", 1)
	case path == "/favicon.ico" && served:
		want["Cache-Control"] = "public, max-age=86400"
	}
	for name, value := range want {
		if got := resp.Header.Get(name); got != value {
			t.Errorf("%s %s, %s: %s is %q, want %q", method, path, resp.Status, name, got, value)
		}
	}
	depends := ""
	switch path {
	case "/", "/blocks", "/loaded", "/blocks/", "/loaded/":
		depends = "X-Forwarded-Prefix"
	case "/metrics":
		depends = "Accept"
	}
	vary := resp.Header.Values("Vary")
	if resp.StatusCode < 400 && depends != "" && !slices.Contains(vary, depends) {
		t.Errorf("%s %s depends on %s, but Vary is %q", method, path, depends, vary)
	}
	return resp.StatusCode
}

// TestVaryWithoutPrefixHeader checks that there is no Vary for a header that is not used.
func TestVaryWithoutPrefixHeader(t *testing.T) {
	for _, o := range []Options{{}, {ExternalPrefix: "/x", PrefixHeader: "X-Forwarded-Prefix"}} {
		w := do(site(o), "GET", "/loaded/", "")
		if vary := w.Header().Values("Vary"); len(vary) > 0 {
			t.Errorf("Vary is %q", vary)
		}
	}
}

// TestHeadersOfTheOperator checks that headers set by --http.config are kept.
func TestHeadersOfTheOperator(t *testing.T) {
	h := site(Options{Blocks: two()})
	for _, path := range []string{"/", "/metrics", "/nowhere", "/api/v1/blocks"} {
		w := httptest.NewRecorder()
		want := map[string]string{
			"Content-Security-Policy": "frame-ancestors 'self'", "X-Frame-Options": "sameorigin",
		}
		for name, value := range want {
			w.Header().Set(name, value)
		}
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		for name, value := range want {
			if got := w.Header().Get(name); got != value {
				t.Errorf("GET %s: %s is %q, want %q", path, name, got, value)
			}
		}
	}
}
