package memcached

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// work carries out writes, one after the other.
func (c *Client) work() {
	var key, buf []byte
	for {
		p, w, ok := c.queue.take()
		if !ok {
			return
		}
		key, buf = c.carryOut(p, w, key[:0], buf[:0])
		if cap(buf) > maxWriteBufferRetained {
			buf = nil
		}
	}
}

// carryOut makes a write. It returns its buffers for the next one.
func (c *Client) carryOut(p *pendingWrite, w write, key, buf []byte) (usedKey, usedBuf []byte) {
	defer func() {
		if c.queue.done(p, w) {
			c.counters.full.Add(1)
		}
	}()
	servers := c.ring.Load()
	if len(servers.servers) == 0 {
		c.counters.none.Add(1)
		c.skip(w.operation(), skippedNoServer)
		return key, buf
	}
	s := servers.servers[servers.pick(&w.id)]
	ticket, ok := s.writeBreaker.allow()
	if !ok {
		c.counters.breaker.Add(1)
		c.skip(w.operation(), skippedBreaker)
		return key, buf
	}
	err := errors.New("memcached: panic during a write")
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("memcached: write: %w", c.panics.Caught(v))
		}
		c.written(s, ticket, w, err)
	}()
	key = appendKey(key, c.o.Namespace, &w.id)
	operation := w.operation()
	if !w.remove {
		buf = appendEnvelope(buf, &w.id, w.value)
	}
	began := time.Now()
	c.metrics.operations[operation].Inc()
	err = s.put(began.Add(c.o.Timeout), string(key), buf, w.remove, expiration(c.o.TTL, began))
	if err == nil {
		c.metrics.duration[operation].Observe(time.Since(began).Seconds())
	}
	return key, buf
}

// written records the result of a write.
func (c *Client) written(s *server, t ticket, w write, err error) {
	operation := w.operation()
	var refused *serverError
	switch {
	case err == nil:
		s.writeBreaker.report(t, verdictGood, nil)
		c.counters.written.Add(1)
		c.counters.writtenBytes.Add(int64(len(w.value)))
		if !w.remove {
			c.metrics.size[opSet].Observe(float64(len(w.value)))
		}
		return
	case errors.As(err, &refused) && strings.Contains(refused.line, "too large"):
		// The server is healthy: its item size limit (-I) is below MaxItemSize.
		s.writeBreaker.report(t, verdictGood, nil)
		c.counters.tooLarge.Add(1)
	default:
		s.writeBreaker.report(t, verdictBad, err)
		c.counters.lost.Add(1)
	}
	c.metrics.failures.WithLabelValues(operation, kindOf(err)).Inc()
	c.o.Logger.Debug("memcached write failed", "client", c.o.Name, "server", s.addr.addr,
		"operation", operation, "bytes", len(w.value), "err", err)
}
