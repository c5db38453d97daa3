package memcached

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// lane is a connection to a server, or a place for one, with a gomemcache client of its own. One
// goroutine at a time uses it, so that the connection knows the deadline and the keys of its
// operation. gomemcache itself has no context, and renews its deadline with every value.
type lane struct {
	home   *lanes
	client *memcache.Client
	spare  net.Conn // connected, not used yet

	// The fields below belong to the last operation. gomemcache uses a goroutine of its own, but
	// only while its caller waits.
	deadline time.Time
	conn     *conn // nil: none open
	reused   bool  // the connection is from an earlier operation
	dialErr  error
	reply    reply

	used time.Time // time of the last use
}

func newLane(home *lanes) *lane {
	l := &lane{home: home}
	l.client = memcache.NewFromSelector(home.addr)
	l.client.Timeout = home.timeout // gomemcache's; the deadline of the operation is never later
	l.client.MaxIdleConns = 1
	l.client.DialContext = l.connect
	return l
}

// connect implements memcache.Client.DialContext.
func (l *lane) connect(context.Context, string, string) (net.Conn, error) {
	raw := l.spare
	if l.spare = nil; raw == nil {
		if raw, l.dialErr = l.home.connect(l.deadline); l.dialErr != nil {
			return nil, l.dialErr
		}
	}
	l.conn = &conn{Conn: raw, lane: l}
	return l.conn, raw.SetDeadline(l.deadline)
}

// begin prepares for an operation.
func (l *lane) begin(deadline time.Time, keys []string, maxSize int64) error {
	l.deadline, l.dialErr, l.reused = deadline, nil, l.connected()
	l.reply.start(keys, maxSize)
	if l.conn != nil {
		return l.conn.Conn.SetDeadline(deadline)
	}
	return nil
}

// end returns the error of an operation. It closes a connection unless exactly one complete reply
// was received.
func (l *lane) end(err error) error {
	if !l.reply.complete() {
		l.close()
	}
	l.reply.keys = nil
	switch {
	case l.reply.fault != nil:
		return l.reply.fault
	case l.dialErr != nil:
		return l.dialErr
	}
	return err
}

// get requests keys. On an error it returns the items received before it.
func (l *lane) get(
	deadline time.Time, keys []string, maxSize int64,
) (map[string]*memcache.Item, error) {
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

// remove deletes a key. A missing key is no error.
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

// stale reports whether the operation failed because the server had closed its idle connection.
func (l *lane) stale(err error) bool {
	return err != nil && l.reused && l.reply.received == 0 &&
		!errors.Is(err, os.ErrDeadlineExceeded)
}

func (l *lane) connected() bool { return l.conn != nil || l.spare != nil }

// close closes the connection, if there is one.
func (l *lane) close() {
	_ = l.client.Close()
	if l.conn != nil {
		_ = l.conn.Close()
	}
	if l.spare != nil {
		_ = l.spare.Close()
		l.spare = nil
	}
}
