package memcached

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"larder/internal/telemetry"
)

// GetMulti sets the values of the IDs that it finds, and leaves the others nil. It does not request
// IDs that already have a value. It never fails: every problem is a miss. It takes no longer than
// the current read deadline, and ends with ctx. The values must not be written to.
func (c *Client) GetMulti(ctx context.Context, ids []ID, values [][]byte) {
	if len(ids) == 0 || ctx.Err() != nil {
		return
	}
	allowed := c.readDeadline()
	deadline := time.Now().Add(allowed)
	asked := c.pending(ids, values)
	if len(asked) == 0 {
		return
	}
	batches := c.plan(c.ring.Load(), ids, asked)
	if len(batches) == 0 {
		return
	}
	results := make(chan *batch, len(batches))
	if !c.start(ctx, batches, results, deadline, allowed) {
		return
	}
	// Turns, dials and connections observe the deadline, so this timer normally does not fire. If
	// it fires, values that arrived in time are lost.
	late := time.NewTimer(allowed + handOverTime)
	defer late.Stop()
	for range batches {
		select {
		case b := <-results:
			for i, at := range b.at {
				if v := b.values[i]; v != nil {
					values[at] = v
					c.counters.hits.Add(1)
					c.counters.hitBytes.Add(int64(len(v)))
				}
			}
		case <-ctx.Done():
			return
		case <-late.C:
			return
		}
	}
}

// pending sets the values that are not written yet, and returns the positions of the IDs to request
// from servers.
func (c *Client) pending(ids []ID, values [][]byte) []int32 {
	asked := make([]int32, 0, len(ids))
	for i := range ids {
		if values[i] == nil {
			asked = append(asked, int32(i))
		}
	}
	c.counters.requests.Add(int64(len(asked)))
	return c.queue.look(ids, asked, func(i int32, value []byte) {
		if value != nil {
			values[i] = value
			c.counters.pendingHits.Add(1)
			c.counters.hits.Add(1)
			c.counters.hitBytes.Add(int64(len(value)))
		}
	})
}

// batch is a part of the IDs of one call, all on one server.
type batch struct {
	server *server
	at     []int32 // positions in the call
	ids    []ID
	keys   []string
	values [][]byte // found
}

// plan cuts the IDs at the requested positions into batches. It omits servers that are not read
// from now.
func (c *Client) plan(r *ring, ids []ID, asked []int32) []*batch {
	if len(r.servers) == 0 {
		c.skip(opGetMulti, skippedNoServer)
		return nil
	}
	asked, ends := r.sort(ids, asked)
	length := len(c.o.Namespace) + keyBytes
	key := make([]byte, 0, length)
	var batches []*batch
	begin := 0
	for s, end := range ends {
		at := asked[begin:end]
		begin = end
		if len(at) == 0 {
			continue
		}
		if r.servers[s].readBreaker.blocked() {
			c.skip(opGetMulti, skippedBreaker)
			continue
		}
		// All keys share one string, and all IDs one array.
		n := len(at)
		mine, keys, values := make([]ID, n), make([]string, n), make([][]byte, n)
		var text strings.Builder
		text.Grow(n * length)
		for i, pos := range at {
			mine[i] = ids[pos]
			key = appendKey(key[:0], c.o.Namespace, &mine[i])
			text.Write(key)
		}
		for i := range keys {
			keys[i] = text.String()[i*length : (i+1)*length]
		}
		// The batches of a server have about the same size, which avoids a round trip for a few
		// keys.
		parts := (n + c.o.MaxGetMultiBatchSize - 1) / c.o.MaxGetMultiBatchSize
		for p := range parts {
			lo, hi := n*p/parts, n*(p+1)/parts
			batches = append(batches, &batch{server: r.servers[s], at: at[lo:hi], ids: mine[lo:hi],
				keys: keys[lo:hi], values: values[lo:hi]})
		}
	}
	return batches
}

// start runs the batches. It returns false if the client is closed.
func (c *Client) start(
	ctx context.Context, batches []*batch, results chan<- *batch, deadline time.Time,
	allowed time.Duration,
) bool {
	c.life.RLock()
	defer c.life.RUnlock()
	if c.closed {
		return false
	}
	for _, b := range batches {
		c.reads.Go(func() {
			if c.turn(ctx, deadline) {
				c.run(b, deadline, allowed)
				c.turnOver()
			}
			results <- b
		})
	}
	return true
}

// turn waits until a batch may run, or until the deadline or the end of ctx.
func (c *Client) turn(ctx context.Context, deadline time.Time) bool {
	c.metrics.gateTotal.Inc()
	select {
	case c.turns <- struct{}{}:
		c.metrics.gateWait.Observe(0)
	default:
		began := time.Now()
		late := time.NewTimer(time.Until(deadline))
		defer late.Stop()
		select {
		case c.turns <- struct{}{}:
			c.metrics.gateWait.Observe(time.Since(began).Seconds())
		case <-ctx.Done():
			return false
		case <-late.C:
			c.skip(opGetMulti, skippedTurn)
			return false
		}
	}
	c.metrics.gateInFlight.Inc()
	return true
}

func (c *Client) turnOver() {
	c.metrics.gateInFlight.Dec()
	<-c.turns
}

// run requests a batch from its server.
func (c *Client) run(b *batch, deadline time.Time, allowed time.Duration) {
	ticket, ok := b.server.readBreaker.allow()
	if !ok {
		c.skip(opGetMulti, skippedBreaker)
		return
	}
	v, err := verdictBad, error(nil)
	defer func() {
		if p := recover(); p != nil {
			v, err = verdictBad, fmt.Errorf("memcached: read: %w", c.panics.Caught(p))
		}
		b.server.readBreaker.report(ticket, v, err)
	}()
	began := time.Now()
	c.metrics.operations[opGetMulti].Inc()
	var items map[string]*memcache.Item
	items, v, err = b.server.get(deadline, b.keys, c.o.MaxItemSize+int64(envelopeBytes))
	if v == verdictBad && deadline.Sub(began) < allowed/2 && kindOf(err) == kindTimeout {
		v = verdictNothing // the time was spent on waiting for a turn
	}
	size := c.open(b, items)
	if err != nil {
		c.counters.failed.Add(1)
		if kindOf(err) == kindTimeout {
			c.counters.timedOut.Add(1)
		}
		c.metrics.failures.WithLabelValues(opGetMulti, kindOf(err)).Inc()
		c.o.Logger.Debug("memcached read failed", "client", c.o.Name, "server", b.server.addr.addr,
			"keys", len(b.keys), "found", len(items), "err", err)
		return
	}
	c.metrics.duration[opGetMulti].Observe(time.Since(began).Seconds())
	c.metrics.size[opGetMulti].Observe(float64(size))
}

// open verifies the received values and returns their size in bytes.
func (c *Client) open(b *batch, items map[string]*memcache.Item) (total int) {
	corrupt := false
	for i, key := range b.keys {
		item := items[key]
		if item == nil {
			continue
		}
		payload, fault := openEnvelope(item.Value, &b.ids[i])
		if fault != "" {
			c.counters.corrupt.Add(1)
			c.metrics.corrupt.WithLabelValues(fault).Inc()
			if fault != faultVersion { // another version of larder stored it
				c.metrics.corruptions.Mended(telemetry.CorruptCache, 1)
			}
			corrupt = true
			continue
		}
		// The value is copied so that it keeps no other memory alive: gomemcache's array contains
		// the envelope too, which may need the allocator's next size class.
		b.values[i] = slices.Clip(bytes.Clone(payload))
		total += len(payload)
	}
	if corrupt {
		c.metrics.failures.WithLabelValues(opGetMulti, kindCorrupt).Inc()
	}
	return total
}
