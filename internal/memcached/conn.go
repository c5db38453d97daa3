package memcached

import (
	"fmt"
	"net"
	"time"
)

// conn is the connection below gomemcache. It keeps the deadline of the operation, whatever
// gomemcache sets, and checks replies before gomemcache reads them. Only the goroutine of the
// operation uses it.
type conn struct {
	net.Conn
	lane *lane
}

// SetDeadline does nothing: gomemcache would renew the deadline with every value.
func (c *conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing, same as SetDeadline.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing, same as SetDeadline.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// Read implements io.Reader.
func (c *conn) Read(p []byte) (n int, err error) {
	defer func() {
		// This may run in a goroutine of gomemcache, where a panic would end the process.
		if v := recover(); v != nil {
			n, err = 0, fmt.Errorf("memcached: reply: %w", c.lane.home.dials.panics.Caught(v))
		}
	}()
	if c.lane.reply.fault != nil {
		return 0, c.lane.reply.fault
	}
	n, err = c.Conn.Read(p)
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
