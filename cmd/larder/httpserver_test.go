package main

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestHTTPClientsThatSendHeadersForEver checks that a connection is closed if its headers arrive
// byte by byte or are too long.
func TestHTTPClientsThatSendHeadersForEver(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = newHTTPServer(http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if srv.Config.ReadHeaderTimeout <= 0 || srv.Config.ReadHeaderTimeout > 30*time.Second ||
		srv.Config.IdleTimeout <= 0 {
		t.Errorf(
			"headers may take %v, connections may idle for %v", srv.Config.ReadHeaderTimeout,
			srv.Config.IdleTimeout,
		)
	}
	srv.Config.ReadHeaderTimeout /= 100 // the test does not wait for it
	srv.Start()
	defer srv.Close()

	slow, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	if _, err := io.WriteString(slow, "GET / HTTP/1.1\r\nHost: a\r\nX-"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, slow); err != nil { // until the server closes it
		t.Error(err)
	}

	long, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = long.Close() }()
	go func() {
		_, _ = io.WriteString(
			long,
			"GET / HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat(
				"x", maxHTTPHeaderBytes+8<<10,
			)+"\r\n\r\n",
		)
	}()
	resp, err := http.ReadResponse(bufio.NewReader(long), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil ||
		resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %s, want 431", resp.Status)
	}
}

// TestHeadersBehindHTTPConfig checks the headers of both ports with --http.config. Errors of its
// library have nosniff, and its headers replace larder's.
func TestHeadersBehindHTTPConfig(t *testing.T) {
	// The user is a, the password b.
	config := write(t, "web.yml", "http_server_config: {headers: {X-Frame-Options: sameorigin}}\n"+
		"basic_auth_users: {a: $2a$04$HRI8pEuNvAOEF3TU4Jh5Du7cTR5oezBuftK4faejN2NPCpqXPysnm}\n")
	p := startProcess(t, folder(t.TempDir()), "--http.config="+config,
		"--web.debug-address=127.0.0.1:0")
	debug := "http://" + addressIn(p.await(`"Listening on".*server=debug`))
	p.next = 0
	main := "http://" + addressIn(p.await(`"Listening on".*server=http`))
	ask := func(url, password string, code int, want map[string]string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("a", password)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != code {
			t.Errorf("%s: got %s, want %d", url, resp.Status, code)
		}
		for name, value := range want {
			if got := resp.Header.Get(name); got != value {
				t.Errorf("%s, %s: %s is %q, want %q", url, resp.Status, name, got, value)
			}
		}
	}
	want := map[string]string{
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "sameorigin",
		"Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
	}
	for _, path := range []string{"/", "/metrics", "/-/healthy", "/api/v1/status/flags"} {
		ask(main+path, "b", 200, want)
	}
	ask(main+"/debug/pprof/", "b", 404, want)
	ask(debug+"/debug/pprof/", "b", 200, want)
	ask(debug+"/metrics", "b", 404, want)
	refusal := map[string]string{"X-Content-Type-Options": "nosniff"}
	ask(main+"/metrics", "wrong", 401, refusal)
	ask(debug+"/debug/pprof/", "wrong", 401, refusal)
}
