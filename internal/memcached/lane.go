package memcached

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// endpoint is where a server listens, and what its certificate says.
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

// serverAddr is the endpoint as gomemcache wants it, which tells servers apart by the pointer.
type serverAddr struct{ network, addr string }

func (a *serverAddr) Network() string { return a.network }
func (a *serverAddr) String() string  { return a.addr }

// PickServer implements memcache.ServerSelector for the one server.
func (a *serverAddr) PickServer(string) (net.Addr, error) { return a, nil }

// Each implements memcache.ServerSelector.
func (a *serverAddr) Each(f func(net.Addr) error) error { return f(a) }

// lane is a connection to a server, or the place of one, with a gomemcache client of its own. One goroutine at a time uses it, so that
// what runs on the connection is known: until when it may, and which keys it asked for. gomemcache itself has neither a context nor a
// deadline that it does not renew with every value.
type lane struct {
	dial   func(ctx context.Context) (net.Conn, error)
	client *memcache.Client

	// Of the operation that runs or ran last. gomemcache works in a goroutine of its own, but only while its caller waits.
	deadline time.Time
	conn     *conn // nil: none open
	reused   bool  // the connection is from an earlier operation
	dialErr  error
	reply    reply

	used time.Time // for the last time
}

func newLane(addr *serverAddr, timeout time.Duration, dial func(ctx context.Context) (net.Conn, error)) *lane {
	l := &lane{dial: dial}
	l.client = memcache.NewFromSelector(addr)
	l.client.Timeout = timeout // of the dial, at most; conn has its own
	l.client.MaxIdleConns = 1
	l.client.DialContext = l.connect
	return l
}

// connect implements memcache.Client.DialContext.
func (l *lane) connect(ctx context.Context, _, _ string) (nc net.Conn, err error) {
	defer func() {
		if p := recover(); p != nil { // a callback of the TLS configuration
			err = fmt.Errorf("memcached: panic while connecting: %v", p)
		}
		l.dialErr = err
	}()
	ctx, cancel := context.WithDeadline(ctx, l.deadline)
	defer cancel()
	raw, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	if err := raw.SetDeadline(l.deadline); err != nil {
		raw.Close()
		return nil, err
	}
	l.conn = &conn{Conn: raw, lane: l}
	return l.conn, nil
}

// begin prepares for an operation.
func (l *lane) begin(deadline time.Time, keys []string, maxSize int64) error {
	l.deadline, l.dialErr, l.reused = deadline, nil, l.conn != nil
	l.reply.start(keys, maxSize)
	if l.conn != nil {
		return l.conn.Conn.SetDeadline(deadline)
	}
	return nil
}

// end looks at what came of it. A connection on which anything but one whole reply came is not used again.
func (l *lane) end(err error) error {
	if l.conn != nil && !l.reply.complete() {
		l.close()
	}
	switch {
	case l.reply.fault != nil:
		return l.reply.fault
	case l.dialErr != nil:
		return l.dialErr
	}
	return err
}

// get asks for keys. What has come before an error is returned with it.
func (l *lane) get(deadline time.Time, keys []string, maxSize int64) (map[string]*memcache.Item, error) {
	if err := l.begin(deadline, keys, maxSize); err != nil {
		return nil, l.end(err)
	}
	items, err := l.client.GetMulti(keys)
	return items, l.end(err)
}

// set writes an item.
func (l *lane) set(deadline time.Time, item *memcache.Item) error {
	if err := l.begin(deadline, nil, 0); err != nil {
		return l.end(err)
	}
	return l.end(l.client.Set(item))
}

// remove deletes a key. That there is none is no error.
func (l *lane) remove(deadline time.Time, key string) error {
	if err := l.begin(deadline, nil, 0); err != nil {
		return l.end(err)
	}
	err := l.client.Delete(key)
	if errors.Is(err, memcache.ErrCacheMiss) {
		err = nil
	}
	return l.end(err)
}

// stale tells whether the operation failed because its connection, idle before, had been closed by the server.
func (l *lane) stale(err error) bool {
	return err != nil && l.reused && l.reply.received == 0 && !errors.Is(err, os.ErrDeadlineExceeded)
}

// close ends the connection, if there is one.
func (l *lane) close() {
	l.client.Close()
	if l.conn != nil {
		l.conn.Close()
	}
}

// conn is a connection under gomemcache: it keeps the deadline of the operation, whatever gomemcache sets, and checks replies before
// gomemcache reads them. Only the goroutine of the operation uses it.
type conn struct {
	net.Conn
	lane *lane
}

// SetDeadline does nothing: gomemcache would renew the deadline with every value.
func (c *conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing, as SetDeadline.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing, as SetDeadline.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// Read implements io.Reader.
func (c *conn) Read(p []byte) (int, error) {
	if c.lane.reply.fault != nil {
		return 0, c.lane.reply.fault
	}
	n, err := c.Conn.Read(p)
	ok, fault := c.lane.reply.pass(p[:n])
	if fault != nil {
		return ok, fault
	}
	return n, err
}

// Close implements io.Closer.
func (c *conn) Close() error {
	if c.lane.conn == c {
		c.lane.conn = nil
	}
	return c.Conn.Close()
}

// lanes are the connections to one server in one direction. More may be in use than are kept.
type lanes struct {
	addr    *serverAddr
	timeout time.Duration
	dial    func(ctx context.Context) (net.Conn, error)

	mu      sync.Mutex
	keep    int
	idle    []*lane // the last one was used last
	retired bool
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
	return newLane(ls.addr, ls.timeout, ls.dial)
}

// put gives a lane back.
func (ls *lanes) put(l *lane) {
	if l.conn == nil {
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

// drop closes the idle connections that were last used before a time. All that are older than a stale one are stale too.
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

// retire closes the idle connections, and those in use when they are given back.
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

// dialer returns what connects to an endpoint.
func dialer(e endpoint, conf *tls.Config) func(ctx context.Context) (net.Conn, error) {
	plain := &net.Dialer{}
	if conf == nil {
		return func(ctx context.Context) (net.Conn, error) { return plain.DialContext(ctx, e.network(), e.addr) }
	}
	conf = conf.Clone()
	if conf.ServerName == "" {
		conf.ServerName = e.name
	}
	secure := &tls.Dialer{NetDialer: plain, Config: conf}
	return func(ctx context.Context) (net.Conn, error) { return secure.DialContext(ctx, e.network(), e.addr) }
}
