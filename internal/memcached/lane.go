package memcached

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// lane is a connection to a server, or the place of one, with a gomemcache client of its own. One
// goroutine at a time uses it, so that what runs on the connection is known: until when it may, and
// which keys it asked for. gomemcache itself has neither a context nor a deadline that it does not
// renew with every value.
type lane struct {
	home   *lanes
	client *memcache.Client
	spare  net.Conn // connected, and not used yet

	// Of the operation that runs or ran last. gomemcache works in a goroutine of its own, but only
	// while its caller waits.
	deadline time.Time
	conn     *conn // nil: none open
	reused   bool  // the connection is from an earlier operation
	dialErr  error
	reply    reply

	used time.Time // for the last time
}

func newLane(home *lanes) *lane {
	l := &lane{home: home}
	l.client = memcache.NewFromSelector(home.addr)
	l.client.Timeout = home.timeout // gomemcache's; the operation's deadline is never later
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

// end looks at what came of it. A connection on which anything but one whole reply came is not used
// again.
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

// get asks for keys. What has come before an error is returned with it.
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

// stale tells whether the operation failed because its connection, idle before, had been closed by
// the server.
func (l *lane) stale(err error) bool {
	return err != nil && l.reused && l.reply.received == 0 &&
		!errors.Is(err, os.ErrDeadlineExceeded)
}

func (l *lane) connected() bool { return l.conn != nil || l.spare != nil }

// close ends the connection, if there is one.
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
