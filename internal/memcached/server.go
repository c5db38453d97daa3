package memcached

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// server is one memcached: its connections and its breakers.
type server struct {
	addr          endpoint
	reads, writes *lanes
	readBreaker   *readBreaker
	writeBreaker  *writeBreaker
}

func newServer(e endpoint, o *Options) *server {
	dial := dialer(e, o.TLS)
	addr := &serverAddr{network: e.network(), addr: e.addr}
	log := o.Logger.With("client", o.Name, "server", e.addr)
	return &server{
		addr:         e,
		reads:        &lanes{addr: addr, timeout: o.Timeout, dial: dial, keep: o.MaxIdleConnections},
		writes:       &lanes{addr: addr, timeout: o.Timeout, dial: dial, keep: o.MaxAsyncConcurrency},
		readBreaker:  &readBreaker{longest: o.Breaker.OpenDuration, changed: tell(log, "read from")},
		writeBreaker: &writeBreaker{o: o.Breaker, changed: tell(log, "written to")},
	}
}

// tell logs that a server is given up, and that it is back.
func tell(log *slog.Logger, what string) func(open bool, cause error) {
	return func(open bool, cause error) {
		if open {
			log.Warn("memcached is not "+what+" for now: it is tried again after a while", "err", cause)
		} else {
			log.Info("memcached is " + what + " again")
		}
	}
}

// get asks for keys until the deadline. The verdict is what that says about the server, which had waited for the whole time given.
func (s *server) get(deadline time.Time, keys []string, maxSize int64) (items map[string]*memcache.Item, v verdict, err error) {
	l := s.reads.take()
	began := time.Now()
	items, err = l.get(deadline, keys, maxSize)
	stale, answered := l.stale(err), l.reply.next
	s.reads.put(l)
	switch {
	case err == nil:
		return items, verdictGood, nil
	case stale:
		s.reads.drop(began)
		return items, verdictNothing, err
	case kindOf(err) == kindTimeout && 2*answered >= len(keys):
		return items, verdictStrike, err // it paid to wait
	case kindOf(err) == kindTimeout, kindOf(err) == kindNetwork:
		return items, verdictBad, err
	}
	return items, verdictStrike, err
}

// put carries out a write.
func (s *server) put(deadline time.Time, key string, value []byte, remove bool, ttl int32) error {
	for {
		l := s.writes.take()
		began := time.Now()
		var err error
		if remove {
			err = l.remove(deadline, key)
		} else {
			err = l.set(deadline, &memcache.Item{Key: key, Value: value, Expiration: ttl})
		}
		stale := l.stale(err)
		if err != nil && !stale && l.reply.complete() {
			err = &serverError{l.reply.text()}
		}
		s.writes.put(l)
		if !stale {
			return err
		}
		// Nobody waits for a write, and it can be made twice. With the stale connections gone this ends at a new one.
		s.writes.drop(began)
	}
}

// retire closes the connections.
func (s *server) retire() {
	s.reads.retire()
	s.writes.retire()
}

// Kinds of failure, as Thanos's metrics name them.
const (
	kindTimeout   = "timeout"
	kindNetwork   = "network-error"
	kindServer    = "server-error"
	kindMalformed = "malformed-reply"
	kindKey       = "malformed-key"
	kindCorrupt   = "corrupt"
	kindOther     = "other"
)

func kindOf(err error) string {
	var network net.Error
	var connect *memcache.ConnectTimeoutError
	var server *serverError
	switch {
	case errors.As(err, &server):
		return kindServer
	case errors.Is(err, errMalformed):
		return kindMalformed
	case errors.Is(err, memcache.ErrMalformedKey):
		return kindKey
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &connect):
		return kindTimeout
	case errors.As(err, &network):
		if network.Timeout() {
			return kindTimeout
		}
		return kindNetwork
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return kindNetwork
	}
	return kindOther
}
