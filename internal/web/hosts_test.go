package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestAllowedHosts checks names that no other site can have, and names that were given.
func TestAllowedHosts(t *testing.T) {
	f := func(h hosts, want bool, names ...string) {
		t.Helper()
		for _, name := range names {
			if h.allowed(name) != want {
				t.Errorf("%+v: %q allowed: %v, want %v", h, name, !want, want)
			}
		}
	}
	own := hosts{own: []string{"node-7.example.com"}}
	f(own, true, "", "127.0.0.1", "127.0.0.1:10902", "10.1.2.3:80", "[::1]:10902", "[::1]",
		"[fd00::1]:1", "localhost", "localhost:10902", "LOCALHOST", "a.localhost:1", "store-0",
		"thanos-store:10902",
		"store-0.thanos.monitoring.svc", "thanos-store.monitoring.svc.cluster.local:10902",
		"ip-10-0-0-1.ec2.internal", "node-7.example.com:10902", "Node-7.Example.com.",
		"localhost.:1")
	f(own, false, "evil.example", "evil.example:10902", "node-8.example.com",
		"127.0.0.1.evil.example", "localhost.evil.example", "svc.evil.example", "evilsvc.example",
		"1.2.3.4.5", "127.1.example",
		"a.node-7.example.com", "evil.example.", "127.0.0.1@evil.example", "[::1].evil.example",
		"a.cluster.local.evil.example:1", "x.local")
	given := hosts{given: []string{"larder.example.com", "*.thanos.example.com"}}
	f(given, true, "larder.example.com", "LARDER.example.com:443", "a.thanos.example.com",
		"a.b.thanos.example.com", "127.0.0.1")
	f(given, false, "thanos.example.com", "xthanos.example.com", "a.larder.example.com",
		"evil.example")
	f(hosts{given: []string{"*"}}, true, "evil.example")
}

func TestParseHost(t *testing.T) {
	f := func(s, want string) {
		t.Helper()
		if got, err := ParseHost(s); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", s, got, err, want)
		}
	}
	f("Larder.Example.com.", "larder.example.com")
	f("*.example.com", "*.example.com")
	f("*", "*")
	f("a", "a")
	for _, bad := range []string{
		"", "a b", "https://a.example", "a.example:10902", "a.example,b.example", "*a.example",
		"a.*.example", "**", "*.", ".a", "a..b", "-a", "u@a",
	} {
		if got, err := ParseHost(bad); err == nil {
			t.Errorf("%q: got %q", bad, got)
		}
	}
}

// TestRebinding sends requests with the host name of another site. /debug/ and marks are rejected.
// Pages and API are rejected if names are given. Probes and metrics accept every name.
func TestRebinding(t *testing.T) {
	const evil = "evil.example:10902"
	mark := "/api/v1/blocks/mark?action=DELETION&id=" + idA.String()
	f := func(o Options, debug bool, method, path string, want int) {
		t.Helper()
		marker := &fakeMarker{}
		o.Probe, o.Gatherer = NewProbe(nil, nil), prometheus.NewRegistry()
		o.Blocks, o.Marker = two(), marker
		handler := Handler
		if debug {
			handler = DebugHandler
		}
		r := httptest.NewRequest(method, path, nil)
		r.Host = evil
		if method == http.MethodPost {
			r.Header.Set("Origin", "http://"+evil)
		}
		w := httptest.NewRecorder()
		handler(o).ServeHTTP(w, r)
		says := strings.Contains(w.Body.String(), "--web.allowed-hosts")
		if w.Code != want || want == 403 && !says {
			t.Errorf("%s %s, allowed %q: got %d %s, want %d",
				method, path, o.AllowedHosts, w.Code, w.Body, want)
		}
		if marked := len(marker.marks) > 0; marked != (want == 204) {
			t.Errorf("%s %s, allowed %q: marked: %v", method, path, o.AllowedHosts, marked)
		}
	}
	none, other := Options{}, Options{AllowedHosts: []string{"a.example"}}
	same := Options{AllowedHosts: []string{"evil.example"}}
	for _, debug := range []bool{false, true} {
		for _, o := range []Options{none, other} {
			f(o, debug, "POST", mark, 403)
			f(o, debug, "GET", "/debug/pprof/", 403)
			f(o, debug, "GET", "/debug/pprof/heap", 403)
			f(o, debug, "POST", "/debug/pprof/symbol", 403)
			f(o, debug, "GET", "/debug/fgprof?seconds=1", 403)
		}
		f(same, debug, "POST", mark, 204)
		f(same, debug, "GET", "/debug/pprof/heap", 200)
	}
	for _, path := range []string{
		"/", "/blocks", "/loaded", "/api/v1/blocks?view=loaded", "/api/v1/status/flags",
	} {
		f(none, false, "GET", path, 200)
		f(same, false, "GET", path, 200)
		f(other, false, "GET", path, 403)
	}
	for _, o := range []Options{none, other, same} {
		f(o, false, "GET", "/metrics", 200)
		f(o, false, "GET", "/-/healthy", 200)
		f(o, false, "GET", "/-/ready", 503)
	}
}
