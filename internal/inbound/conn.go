package inbound

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/peer"
)

// Conn is a connection that a client has opened.
type Conn struct {
	net.Conn
	listener *Listener
	client   netip.Prefix
	source   *source // of client; set when the connection is let in
	addr     *Addr
	requests *connRequests // guarded by Requests.mu; nil before the first request
	closed   atomic.Bool
	done     chan struct{} // closed with the connection
	// armed is when Write has set the write deadline last, in nanoseconds since 1970; 0 when it has
	// to, serversOwn while one of the server is in force.
	armed atomic.Int64
}

const serversOwn = -1

// Addr is the address of a client. Servers hand it on, by which From finds the connection.
type Addr struct {
	net.Addr
	conn *Conn
}

// Network is "unix" for grpc's channelz: it tells the text of such an address, by which streams
// finds the connection, and of "tcp" it believes that it is a *net.TCPAddr.
func (*Addr) Network() string { return "unix" }

// From returns the connection that an address came from; nil for another's.
func From(a net.Addr) *Conn {
	if own, ok := a.(*Addr); ok {
		return own.conn
	}
	return nil
}

// Client is who has opened a connection: one address (IPv6: one /64), and how many clients it
// counts as.
type Client struct {
	Network netip.Prefix
	Shares  int
}

// ClientOf returns the client of a gRPC request, the zero value for one that did not come through a
// Listener.
func ClientOf(ctx context.Context) Client {
	if p, ok := peer.FromContext(ctx); ok {
		if c := From(p.Addr); c != nil {
			return Client{c.client, c.source.shares}
		}
	}
	return Client{}
}

// RemoteAddr is an *Addr.
func (c *Conn) RemoteAddr() net.Addr { return c.addr }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	c.deadline(t)
	return c.Conn.SetDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.deadline(t)
	return c.Conn.SetWriteDeadline(t)
}

// deadline notes that the server sets a deadline, or takes it away: only without one of its own
// Write has its own.
func (c *Conn) deadline(t time.Time) {
	if t.IsZero() {
		c.armed.Store(0)
	} else {
		c.armed.Store(serversOwn)
	}
}

// Write sends b, or fails when the client's side has taken nothing of it for the time-out. Writes
// of servers are of one goroutine at a time.
func (c *Conn) Write(b []byte) (int, error) {
	armed, timeout := c.armed.Load(), c.listener.opts.WriteTimeout
	if timeout < 0 || armed == serversOwn {
		return c.Conn.Write(b)
	}
	// To set a deadline for each write would cost more than a small one does.
	if now := time.Now(); now.UnixNano()-armed > int64(timeout/8) {
		if err := c.Conn.SetWriteDeadline(now.Add(timeout)); err != nil {
			return 0, err
		}
		c.armed.CompareAndSwap(armed, now.UnixNano())
	}
	n, err := c.Conn.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.hangUp(writeStalled, false)
	}
	return n, err
}

// Read receives, but no faster than a client may send: the rest waits in the system, and then with
// the client.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if r := c.listener.opts.Requests; r != nil {
		if loser := r.received(c, n); loser != nil {
			loser.hangUp(halfReceived, true)
		}
	}
	if c.source.limiter == nil {
		return n, err
	}
	if wait := c.source.limiter.ReserveN(time.Now(), min(n, c.source.limiter.Burst())).Delay(); wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.done:
		}
	}
	return n, err
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.depart()
	}
	return c.Conn.Close()
}

// depart takes the connection out of what the listener knows. The goroutine that has set closed
// calls it.
func (c *Conn) depart() {
	close(c.done)
	c.listener.leave(c)
}

// hangUp closes the connection for what its client did or did not do. It is counted once. A client
// that is blamed too often finds its new connections refused; clients that stall are not, honest
// ones do.
func (c *Conn) hangUp(reason string, blame bool) {
	if !c.closed.CompareAndSwap(false, true) {
		return
	}
	l := c.listener
	l.opts.Metrics.hungUp.WithLabelValues(l.opts.Server, reason).Inc()
	l.told.Do(func() { // clients that mean harm must not fill the log
		l.opts.Logger.Warn("hung up on a client",
			"server", l.opts.Server, "client", c.addr.Addr, "reason", reason)
	})
	if blame {
		c.source.hangUps.Allow()
	}
	c.depart()
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // what it does not read need not be kept for it
	}
	_ = c.Conn.Close() // it is of no use any more
}

// Stalled notes that a stream of the connection was ended because its client did not read it. What
// grpc has of its answer stays until the client takes it, drops the stream or goes, and nobody
// learns which: so only the last few may have been of connections that still stand.
func (c *Conn) Stalled() {
	l := c.listener
	l.mu.Lock()
	if !c.closed.Load() {
		l.stalled = append(l.stalled, c)
	}
	var oldest *Conn
	if len(l.stalled) > maxStalled {
		oldest = l.stalled[0]
	}
	l.mu.Unlock()
	if oldest != nil {
		oldest.hangUp(streamsStalled, false)
	}
}
