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

// TestHTTPClientsThatSendHeadersForEver: a connection on which headers come byte by byte ends, and so do headers that are too long.
func TestHTTPClientsThatSendHeadersForEver(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = newHTTPServer(http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if srv.Config.ReadHeaderTimeout <= 0 || srv.Config.ReadHeaderTimeout > 30*time.Second || srv.Config.IdleTimeout <= 0 {
		t.Errorf("headers may take %v, connections may idle for %v", srv.Config.ReadHeaderTimeout, srv.Config.IdleTimeout)
	}
	srv.Config.ReadHeaderTimeout /= 100 // nobody waits for it here
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
		_, _ = io.WriteString(long, "GET / HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("x", maxHTTPHeaderBytes+8<<10)+"\r\n\r\n")
	}()
	resp, err := http.ReadResponse(bufio.NewReader(long), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %s, want 431", resp.Status)
	}
}
