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

// server is one memcached with its connections and breakers.
type server struct {
	addr          endpoint
	reads, writes *lanes
	readBreaker   *readBreaker
	writeBreaker  *writeBreaker
}

func newServer(e endpoint, o *Options, d *dials) *server {
	dial := dialer(e, o.TLS)
	addr := &serverAddr{network: e.network(), addr: e.addr}
	log := o.Logger.With("client", o.Name, "server", e.addr)
	return &server{
		addr: e,
		reads: &lanes{addr: addr, timeout: o.Timeout, dial: dial, keep: o.MaxIdleConnections,
			dials: d},
		writes: &lanes{addr: addr, timeout: o.Timeout, dial: dial,
			keep: o.MaxAsyncConcurrency, dials: d},
		readBreaker: &readBreaker{longest: o.Breaker.OpenDuration,
			changed: tell(log, "read from")},
		writeBreaker: &writeBreaker{o: o.Breaker, changed: tell(log, "written to")},
	}
}

// tell returns a function that logs that a server is given up and that it is back.
func tell(log *slog.Logger, what string) func(open bool, cause error) {
	return func(open bool, cause error) {
		if open {
			log.Warn("memcached is not "+what+" for now: larder retries it periodically", "err",
				cause)
		} else {
			log.Info("memcached is " + what + " again")
		}
	}
}

// get requests keys until the deadline. The verdict applies to the server if the deadline was long
// enough.
func (s *server) get(
	deadline time.Time, keys []string, maxSize int64,
) (items map[string]*memcache.Item, v verdict, err error) {
	l := s.reads.take()
	began := time.Now()
	items, err = l.get(deadline, keys, maxSize)
	stale, answered := l.stale(err), l.reply.next
	s.reads.put(l)
	if err == nil {
		return items, verdictGood, nil
	}
	switch kind := kindOf(err); {
	case stale:
		v = verdictNothing
	case kind == kindTooLarge:
		return items, verdictGood, err // the server is well
	case kind == kindTimeout && 2*answered >= len(keys):
		return items, verdictStrike, err // waiting was worth it
	case kind == kindTimeout, kind == kindNetwork:
		v = verdictBad
	default:
		return items, verdictStrike, err
	}
	// Older connections are in the same state, and the next read that found out would be a probe.
	s.reads.drop(began)
	return items, v, err
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
		if kind := kindOf(err); stale || kind == kindTimeout || kind == kindNetwork {
			s.writes.drop(began)
		}
		// No caller waits for a write, and repeating it is harmless. Each repetition removes stale
		// connections, until a new one is dialed.
		if !stale {
			return err
		}
	}
}

// retire closes the connections.
func (s *server) retire() {
	s.reads.retire()
	s.writes.retire()
}

// Kinds of failure, named as in Thanos's metrics.
const (
	kindTimeout   = "timeout"
	kindNetwork   = "network-error"
	kindServer    = "server-error"
	kindMalformed = "malformed-reply"
	kindKey       = "malformed-key"
	kindTooLarge  = skippedTooLarge
	kindCorrupt   = "corrupt"
	kindOther     = "other"
)

// dialError is the reason why no connection could be made.
type dialError struct{ err error }

func (e *dialError) Error() string { return "memcached: connecting: " + e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// kindOf returns the kind of an error, "" for nil.
func kindOf(err error) string {
	var network net.Error
	var server *serverError
	var dial *dialError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &server):
		return kindServer
	case errors.Is(err, errTooLarge):
		return kindTooLarge
	case errors.Is(err, errMalformed):
		return kindMalformed
	case errors.Is(err, memcache.ErrMalformedKey):
		return kindKey
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return kindTimeout
	case errors.As(err, &network):
		if network.Timeout() {
			return kindTimeout
		}
		return kindNetwork
	case errors.As(err, &dial), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, net.ErrClosed):
		return kindNetwork
	}
	return kindOther
}
