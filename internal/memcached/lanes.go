package memcached

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"larder/internal/panics"
)

// endpoint is the address of a server and the name in its certificate.
type endpoint struct {
	addr string // host:port, or the path of a Unix socket
	name string // host in the certificate
}

func (e *endpoint) network() string {
	if len(e.addr) > 0 && e.addr[0] == '/' {
		return "unix"
	}
	return "tcp"
}

// serverAddr is an endpoint for gomemcache, which identifies servers by the pointer.
type serverAddr struct{ network, addr string }

func (a *serverAddr) Network() string { return a.network }
func (a *serverAddr) String() string  { return a.addr }

// PickServer implements memcache.ServerSelector with the one server.
func (a *serverAddr) PickServer(string) (net.Addr, error) { return a, nil }

// Each implements memcache.ServerSelector.
func (a *serverAddr) Each(f func(net.Addr) error) error { return f(a) }

// lanes are the connections to one server in one direction. More may be in use than are kept.
type lanes struct {
	addr    *serverAddr
	timeout time.Duration // of a dial
	dial    func(ctx context.Context) (net.Conn, error)
	keep    int
	dials   *dials

	mu      sync.Mutex
	idle    []*lane // least recently used first
	retired bool
}

// dials are the running dials of a client.
type dials struct {
	ctx     context.Context // ends with the client
	panics  *panics.Guard
	running sync.WaitGroup
}

// connect returns a new connection. At the deadline it returns an error, but the dial continues and
// its connection is kept idle: otherwise a deadline shorter than a TLS handshake would prevent
// every connection.
func (ls *lanes) connect(deadline time.Time) (net.Conn, error) {
	type result struct {
		raw net.Conn
		err error
	}
	results, tooLate := make(chan result), make(chan struct{})
	ls.dials.running.Go(func() {
		var r result
		defer func() {
			if p := recover(); p != nil { // from a callback of the TLS configuration
				r = result{err: fmt.Errorf("memcached: connect: %w", ls.dials.panics.Caught(p))}
			}
			select {
			case results <- r:
			case <-tooLate:
				if r.err == nil {
					l := newLane(ls)
					l.spare = r.raw
					ls.put(l)
				}
			}
		}()
		ctx, cancel := context.WithTimeout(ls.dials.ctx, ls.timeout)
		defer cancel()
		r.raw, r.err = ls.dial(ctx)
	})
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case r := <-results:
		if r.err != nil {
			return nil, &dialError{r.err}
		}
		return r.raw, nil
	case <-timer.C:
		close(tooLate)
		return nil, &dialError{os.ErrDeadlineExceeded}
	}
}

// take returns a lane, connected if one is idle.
func (ls *lanes) take() *lane {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if n := len(ls.idle); n > 0 {
		l := ls.idle[n-1]
		ls.idle[n-1] = nil
		ls.idle = ls.idle[:n-1]
		return l
	}
	return newLane(ls)
}

// put returns a lane to the idle ones.
func (ls *lanes) put(l *lane) {
	if !l.connected() {
		return
	}
	l.used = time.Now()
	ls.mu.Lock()
	kept := !ls.retired && len(ls.idle) < ls.keep
	if kept {
		ls.idle = append(ls.idle, l)
	}
	ls.mu.Unlock()
	if !kept {
		l.close()
	}
}

// drop closes the idle connections last used before a time. All connections older than a stale one
// are stale too.
func (ls *lanes) drop(before time.Time) {
	ls.mu.Lock()
	n := 0
	for n < len(ls.idle) && ls.idle[n].used.Before(before) {
		n++
	}
	gone := append([]*lane(nil), ls.idle[:n]...)
	rest := copy(ls.idle, ls.idle[n:])
	clear(ls.idle[rest:])
	ls.idle = ls.idle[:rest]
	ls.mu.Unlock()
	for _, l := range gone {
		l.close()
	}
}

// retire closes the idle connections now, and those in use when they are returned.
func (ls *lanes) retire() {
	ls.mu.Lock()
	ls.retired = true
	gone := ls.idle
	ls.idle = nil
	ls.mu.Unlock()
	for _, l := range gone {
		l.close()
	}
}

// dialer returns the function that connects to an endpoint.
func dialer(e endpoint, conf *tls.Config) func(ctx context.Context) (net.Conn, error) {
	plain := &net.Dialer{}
	if conf == nil {
		return func(ctx context.Context) (net.Conn, error) {
			return plain.DialContext(ctx, e.network(), e.addr)
		}
	}
	conf = conf.Clone()
	if conf.ServerName == "" {
		conf.ServerName = e.name
	}
	secure := &tls.Dialer{NetDialer: plain, Config: conf}
	return func(ctx context.Context) (net.Conn, error) {
		return secure.DialContext(ctx, e.network(), e.addr)
	}
}
