package web

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestDebugElsewhere checks that /debug/ and the marking of blocks are served on the debug address
// only, if there is one.
func TestDebugElsewhere(t *testing.T) {
	marker := &fakeMarker{}
	o := Options{
		Probe: NewProbe(nil, nil), Gatherer: prometheus.NewRegistry(), Blocks: two(),
		Marker: marker, DebugElsewhere: true, OwnHosts: []string{"example.com"},
	}
	main, debug := Handler(o), DebugHandler(o)
	mark := "/api/v1/blocks/mark?action=DELETION&id=" + idA.String()
	for _, tc := range []struct {
		method, path string
		main, debug  int
	}{
		{http.MethodGet, "/debug/pprof/", 404, 200},
		{http.MethodGet, "/debug/pprof/heap", 404, 200},
		{http.MethodGet, "/debug/pprof/cmdline", 404, 404},
		{http.MethodPost, "/debug/pprof/symbol", 404, 200},
		{http.MethodGet, "/debug/fgprof?seconds=x", 404, 400},
		{http.MethodPost, mark, 404, 204},
		{http.MethodGet, "/api/v1/blocks", 200, 404},
		{http.MethodGet, "/api/v1/status/flags", 200, 404},
		{http.MethodGet, "/metrics", 200, 404},
		{http.MethodGet, "/-/healthy", 200, 404},
		{http.MethodGet, "/", 200, 404},
	} {
		at := func(where string, h http.Handler, want int) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(tc.method, tc.path, nil))
			if w.Code != want {
				t.Errorf(
					"%s %s at the %s address: got %d, want %d", tc.method, tc.path, where, w.Code,
					want,
				)
			}
		}
		at("main", main, tc.main)
		at("debug", debug, tc.debug)
	}
	if len(marker.marks) != 1 {
		t.Errorf("got %d marks, want 1, from the debug address", len(marker.marks))
	}
	if body := get(t, main, "/", "").Body.String(); strings.Contains(body, "debug/") {
		t.Error("the overview links to /debug/, which is on another address")
	}
	o.Disable = true
	w := httptest.NewRecorder()
	DebugHandler(o).ServeHTTP(w, httptest.NewRequest(http.MethodPost, mark, nil))
	if w.Code != 404 {
		t.Errorf("with the API disabled: got %d for a mark, want 404", w.Code)
	}
}

// heldBlocks blocks in Snapshot until leave is closed.
type heldBlocks struct {
	fakeBlocks
	begun, leave chan struct{}
}

func (h heldBlocks) Snapshot() Snapshot {
	h.begun <- struct{}{}
	<-h.leave
	return h.snap
}

// TestHeavyEndpointsAreBounded checks the number of concurrent pages and API answers. Probes,
// metrics and profiles do not wait for them.
func TestHeavyEndpointsAreBounded(t *testing.T) {
	blocks := heldBlocks{two(), make(chan struct{}), make(chan struct{})}
	h := site(Options{Blocks: blocks})
	var wg sync.WaitGroup
	for i := range maxShown {
		path := []string{"/", "/blocks", "/api/v1/blocks?view=loaded"}[i%3]
		wg.Go(func() {
			if w := get(t, h, path, ""); w.Code != 200 {
				t.Errorf("%s: got %d", path, w.Code)
			}
		})
	}
	for range maxShown {
		<-blocks.begun
	}
	for _, path := range []string{"/", "/loaded", "/api/v1/blocks?view=loaded"} {
		if w := get(t, h, path, ""); w.Code != http.StatusServiceUnavailable ||
			w.Header().Get("Retry-After") == "" {
			t.Errorf(
				"%s beside %d others: got %d, want 503 with Retry-After", path, maxShown,
				w.Code,
			)
		}
	}
	for _, path := range []string{"/-/healthy", "/metrics", "/debug/pprof/heap"} {
		if w := get(t, h, path, ""); w.Code != 200 {
			t.Errorf("%s: got %d", path, w.Code)
		}
	}
	close(blocks.leave)
	wg.Wait()
}

func TestProfilesAreBounded(t *testing.T) {
	h := site(Options{Disable: true})
	for _, path := range []string{"profile?seconds=301", "trace?seconds=1e9",
		"heap?seconds=100000"} {
		if w := get(t, h, "/debug/pprof/"+path, ""); w.Code != 400 ||
			!strings.Contains(w.Body.String(), "at most 300") {
			t.Errorf("%s: got %d %q", path, w.Code, w.Body)
		}
	}
}

// pipes is a listener of in-memory connections, whose deadlines use the clock of a synctest bubble.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestSlowClients sends an incomplete body, or does not read the answer. Both connections are
// closed in time.
func TestSlowClients(t *testing.T) {
	for name, tc := range map[string]struct {
		send  string
		after time.Duration
	}{
		"body": {"POST /api/v1/blocks/mark HTTP/1.1\r\nHost: a\r\n" +
			"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nid=",
			bodyTimeout},
		"unread": {"GET /api/v1/blocks?view=loaded HTTP/1.1\r\nHost: a\r\n\r\n", answerTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
				srv := &http.Server{Handler: site(Options{Blocks: two(), Marker: &fakeMarker{}})}
				var served sync.WaitGroup
				served.Go(func() { _ = srv.Serve(l) })
				client, server := net.Pipe()
				l.conns <- server
				began := time.Now()
				if _, err := io.WriteString(client, tc.send); err != nil {
					t.Fatal(err)
				}
				if name == "body" {
					if _, err := io.Copy(io.Discard, client); err != nil {
						t.Error(err)
					}
				} else {
					time.Sleep(answerTimeout + time.Second)
					if n, err := client.Read(make([]byte, 1)); err != io.EOF {
						t.Errorf("read %d bytes, error %v, want io.EOF", n, err)
					}
				}
				if took := time.Since(began); took < tc.after || took > tc.after+2*time.Second {
					t.Errorf("took %v, want %v", took, tc.after)
				}
				_ = client.Close()
				_ = srv.Close()
				served.Wait()
			})
		})
	}
}
