package web

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// clientConn is an in-memory connection with the address of a client.
type clientConn struct {
	net.Conn
	from string
}

func (c clientConn) RemoteAddr() net.Addr {
	a, err := net.ResolveTCPAddr("tcp", c.from)
	if err != nil {
		panic(err)
	}
	return a
}

// unread is a server in a synctest bubble. Its answers block until the client reads them.
type unread struct {
	t     *testing.T
	l     *pipes
	conns []net.Conn
}

// ask sends a request from an address. It returns the connection without reading the answer.
func (u *unread) ask(from, path string) net.Conn {
	u.t.Helper()
	client, server := net.Pipe()
	u.l.conns <- clientConn{server, from}
	u.conns = append(u.conns, client)
	const request = "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
	if _, err := fmt.Fprintf(client, request, path); err != nil {
		u.t.Fatal(err)
	}
	synctest.Wait()
	return client
}

// answered reads the answer.
func (u *unread) answered(c net.Conn, want int) {
	u.t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	}
	if err != nil || resp.StatusCode != want {
		u.t.Errorf("got %v, %v, want %d", resp, err, want)
	}
	synctest.Wait()
}

// ended checks that the server has ended an answer.
func (u *unread) ended(c net.Conn) {
	u.t.Helper()
	if _, err := io.Copy(io.Discard, c); err != nil {
		u.t.Errorf("got %v, want the end of the connection", err)
	}
}

// many returns n blocks.
func many(n int) fakeBlocks {
	f := two()
	for i := range n {
		b := f.snap.Blocks[1]
		b.ID[0], b.ID[1] = byte(i>>8), byte(i)
		f.snap.Blocks = append(f.snap.Blocks, b)
	}
	return f
}

// TestUnreadAnswersDoNotBlockOthers fills all places with answers that one client does not read.
// That client gets no further place, and other clients replace its answers. If every client has one
// answer, the oldest one is replaced.
func TestUnreadAnswersDoNotBlockOthers(t *testing.T) {
	for _, path := range []string{"/metrics", "/api/v1/blocks?view=loaded"} {
		t.Run(path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// Longer than the buffer of net/http.
				reg := prometheus.NewRegistry()
				gauge := prometheus.GaugeOpts{Name: "many", Help: "Many."}
				v := prometheus.NewGaugeVec(gauge, []string{"n"})
				reg.MustRegister(v)
				for n := range 1000 {
					v.WithLabelValues(fmt.Sprint(n))
				}
				l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
				u := &unread{t: t, l: l}
				o := Options{Probe: NewProbe(nil, nil), Gatherer: reg, Blocks: many(200)}
				srv := &http.Server{Handler: Handler(o)}
				var served sync.WaitGroup
				served.Go(func() { _ = srv.Serve(u.l) })

				began := time.Now()
				var held []net.Conn
				for n := range maxScrapes {
					held = append(held, u.ask(fmt.Sprintf("192.0.2.1:%d", n+1), path))
				}
				u.answered(u.ask("192.0.2.1:100", path), http.StatusServiceUnavailable)
				for n := range 3 {
					u.answered(u.ask(fmt.Sprintf("192.0.2.%d:1", n+2), path), http.StatusOK)
				}
				u.ended(held[0])
				// Released places can be used again.
				held = append(held[1:], u.ask("192.0.2.1:101", path))
				// Addresses of one /64 are one client.
				for n := range maxScrapes {
					held = append(held, u.ask(fmt.Sprintf("[2001:db8::%d]:1", n+1), path))
				}
				u.answered(u.ask("[2001:db8::ff]:1", path), http.StatusServiceUnavailable)
				for n := range maxScrapes {
					held = append(held, u.ask(fmt.Sprintf("198.51.100.%d:1", n+1), path))
				}
				u.answered(u.ask("203.0.113.1:1", path), http.StatusOK)
				if took := time.Since(began); took != 0 {
					t.Errorf("a client waited %s", took)
				}
				for _, c := range u.conns {
					_ = c.Close()
				}
				_ = srv.Close()
				served.Wait()
			})
		})
	}
}
