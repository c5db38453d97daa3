package web

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func get(t *testing.T, h http.Handler, path, accept string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestReadiness(t *testing.T) {
	reg := prometheus.NewRegistry()
	var changes []bool
	p := NewProbe(reg, func(ready bool) { changes = append(changes, ready) })
	h := Handler(Options{Probe: p, Gatherer: reg, Disable: true})
	check := func(ready bool) {
		t.Helper()
		code, body, metric := http.StatusServiceUnavailable, "NOT OK", "0"
		if ready {
			code, body, metric = http.StatusOK, "OK", "1"
		}
		if w := get(t, h, "/-/ready", ""); w.Code != code ||
			strings.TrimSpace(w.Body.String()) != body {
			t.Errorf("/-/ready: got %d %q, want %d %q", w.Code, w.Body, code, body)
		}
		if w := get(t, h, "/-/healthy", ""); w.Code != http.StatusOK || w.Body.String() != "OK" {
			t.Errorf("/-/healthy: got %d %q", w.Code, w.Body)
		}
		want := `thanos_status{check="ready",component="store"} ` + metric
		if w := get(t, h, "/metrics", ""); !strings.Contains(w.Body.String(), want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
	check(false)
	p.SetReady()
	p.SetReady()
	check(true)
	if !p.Drain() {
		t.Error("Drain: was ready, got false")
	}
	check(false)
	p.SetReady() // a first sync may end during shutdown
	check(false)
	if p.Drain() {
		t.Error("second Drain: was not ready, got true")
	}
	if got, want := len(changes), 2; got != want {
		t.Errorf("got %d changes %v, want %d", got, changes, want)
	}
}

func TestHandler(t *testing.T) {
	h := site(Options{})
	f := func(path string, code int, contentType string) {
		t.Helper()
		w := get(t, h, path, "application/openmetrics-text;version=1.0.0")
		if w.Code != code {
			t.Errorf("GET %s: got %d, want %d", path, w.Code, code)
		}
		if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, contentType) {
			t.Errorf("GET %s: got %s, want %s", path, got, contentType)
		}
	}
	f("/", 200, "text/html")
	f("/favicon.ico", 200, "image/svg+xml")
	f("/metrics", 200, "application/openmetrics-text")
	f("/debug/pprof/", 200, "text/html")
	f("/debug/pprof/goroutine?debug=1", 200, "text/plain")
	f("/debug/pprof/cmdline", 404, "text/plain")
	f("/nowhere", 404, "text/plain")
	f("/blocks", 200, "text/html")
	f("/loaded", 200, "text/html")

	// Without pages and API, the other paths are served.
	h = site(Options{Disable: true})
	f("/", 404, "text/plain")
	f("/blocks", 404, "text/plain")
	f("/api/v1/blocks", 404, "text/plain")
	f("/api/v1/status/flags", 404, "text/plain")
	f("/favicon.ico", 404, "text/plain")
	f("/metrics", 200, "application/openmetrics-text")
	f("/debug/pprof/", 200, "text/html")
	f("/-/healthy", 200, "text/plain")
}

type panickingBlocks struct{ fakeBlocks }

func (panickingBlocks) Snapshot() Snapshot { panic("no blocks today") }

// TestPanicsAreLogged checks that a panic of a handler is logged with its stack, and that the
// connection is closed.
func TestPanicsAreLogged(t *testing.T) {
	var log bytes.Buffer
	srv := httptest.NewServer(
		site(Options{Blocks: panickingBlocks{}, Logger: slog.New(slog.NewTextHandler(&log, nil))}),
	)
	defer srv.Close()
	if resp, err := srv.Client().Get(srv.URL + "/blocks"); err == nil {
		resp.Body.Close()
		t.Errorf("got %s", resp.Status)
	}
	srv.Close() // when the handler has returned
	if line := log.String(); !strings.Contains(line, "level=ERROR") ||
		!strings.Contains(line, `panic="no blocks today"`) ||
		!strings.Contains(line, "web_test.go") ||
		!strings.Contains(line, "path=/blocks") {
		t.Errorf("got %q", line)
	}
}

// TestHold: a held process is not ready and says why, until it is released.
func TestHold(t *testing.T) {
	var changes []bool
	p := NewProbe(nil, func(ready bool) { changes = append(changes, ready) })
	h := Handler(Options{Probe: p, Gatherer: prometheus.NewRegistry(), Disable: true})
	check := func(want string) {
		t.Helper()
		if w := get(t, h, "/-/ready", ""); strings.TrimSpace(w.Body.String()) != want {
			t.Errorf("got %q, want %q", w.Body, want)
		}
	}
	p.Hold("shard waits")
	p.SetReady()
	check("NOT OK: shard waits")
	p.Hold("")
	check("OK")
	p.Hold("shard waits for a peer")
	check("NOT OK: shard waits for a peer")
	p.Hold("")
	if want := []bool{true, false, true}; !slices.Equal(changes, want) {
		t.Errorf("changes: %v, want %v", changes, want)
	}
}

// TestShardPaths: they are served if there is a shard, and only under names of this server.
func TestShardPaths(t *testing.T) {
	shard := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.URL.Path)) // a recorder does not fail
	})
	probe, reg := NewProbe(nil, nil), prometheus.NewRegistry()
	with := Handler(Options{Probe: probe, Gatherer: reg, Disable: true, Shard: shard})
	without := Handler(Options{Probe: probe, Gatherer: reg, Disable: true})
	for _, c := range []struct {
		h    http.Handler
		host string
		code int
	}{
		{with, "10.0.0.1:10902", http.StatusOK}, {with, "evil.example", http.StatusForbidden},
		{without, "10.0.0.1:10902", http.StatusNotFound},
	} {
		r := httptest.NewRequest(http.MethodPost, "/-/shard/report", nil)
		r.Host = c.host
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, r)
		if w.Code != c.code {
			t.Errorf("%s: got %d, want %d", c.host, w.Code, c.code)
		}
	}
}
