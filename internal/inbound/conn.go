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

// Conn is a connection from a client.
type Conn struct {
	net.Conn
	listener *Listener
	client   netip.Prefix
	source   *source // of client; set when the connection is accepted
	addr     *Addr
	requests *connRequests // guarded by Requests.mu; nil before the first request
	closed   atomic.Bool
	done     chan struct{} // closed with the connection
	// armed is when Write has last set the write deadline, in nanoseconds since 1970. It is 0 if
	// there is none, and serversOwn while the server has set one.
	armed atomic.Int64
}

const serversOwn = -1

// Addr is the address of a client. Servers pass it on, and From returns its connection.
type Addr struct {
	net.Addr
	conn *Conn
}

// Network returns "unix", for grpc's channelz: it reports the text of a unix address, by which
// streams finds the connection. It would assume that a "tcp" address is a *net.TCPAddr.
func (*Addr) Network() string { return "unix" }

// From returns the connection of an address, nil if it does not come from a Listener.
func From(a net.Addr) *Conn {
	if own, ok := a.(*Addr); ok {
		return own.conn
	}
	return nil
}

// Client is a client: an address (IPv6: a /64) and the number of clients that it counts as.
type Client struct {
	Network netip.Prefix
	Shares  int
}

// ClientOf returns the client of a gRPC request, or the zero value if the request did not come
// through a Listener.
func ClientOf(ctx context.Context) Client {
	if p, ok := peer.FromContext(ctx); ok {
		if c := From(p.Addr); c != nil {
			return Client{c.client, c.source.shares}
		}
	}
	return Client{}
}

// RemoteAddr returns an *Addr.
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

// deadline records that the server sets or clears a deadline. While the server has set one, Write
// does not set its own.
func (c *Conn) deadline(t time.Time) {
	if t.IsZero() {
		c.armed.Store(0)
	} else {
		c.armed.Store(serversOwn)
	}
}

// Write sends b. It fails if the client's side accepts no bytes within WriteTimeout. Servers call
// it from one goroutine at a time.
func (c *Conn) Write(b []byte) (int, error) {
	armed, timeout := c.armed.Load(), c.listener.opts.WriteTimeout
	if timeout < 0 || armed == serversOwn {
		return c.Conn.Write(b)
	}
	// Setting a deadline for every write would cost more than a small write.
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

// Read receives at the rate that the client may send with. Further bytes wait in the kernel, and
// then at the client.
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
	if wait := c.source.limiter.ReserveN(time.Now(), min(n, c.source.limiter.Burst())).
		Delay(); wait > 0 {
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

// depart removes the connection from the listener. Only the goroutine that has set closed calls it.
func (c *Conn) depart() {
	close(c.done)
	c.listener.leave(c)
}

// hangUp closes the connection because of the client's behaviour and counts it once. New
// connections of a client that is blamed too often are refused. A client that stalls is not blamed,
// because honest clients stall too.
func (c *Conn) hangUp(reason string, blame bool) {
	if !c.closed.CompareAndSwap(false, true) {
		return
	}
	l := c.listener
	l.opts.Metrics.hungUp.WithLabelValues(l.opts.Server, reason).Inc()
	l.told.Do(func() { // hostile clients must not fill the log
		l.opts.Logger.Warn("connection closed because of its client",
			"server", l.opts.Server, "client", c.addr.Addr, "reason", reason)
	})
	if blame {
		c.source.hangUps.Allow()
	}
	c.depart()
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // discard what the client does not read
	}
	_ = c.Conn.Close() // the error does not matter any more
}

// Stalled records that a stream of the connection was ended because its client did not read it.
// grpc keeps the rest of the answer until the client reads it, resets the stream or disconnects,
// and does not report which. Therefore only the last maxStalled may be on open connections.
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
