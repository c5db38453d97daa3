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

// GetMulti fills in the values of the IDs where they are found, and leaves nil where not. IDs that
// have a value already are not asked for. It never fails: what goes wrong is a miss. It takes no
// longer than the read deadline in force, and ends with ctx. The values must not be written to.
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
	// The turns, dials and connections keep the deadline, so that this does not fire: it would lose
	// what has come in time.
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

// pending fills in the values that are not written yet, and returns the positions of the IDs that
// servers must be asked for.
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

// batch is a part of the IDs of one call, all of one server.
type batch struct {
	server *server
	at     []int32 // positions in the call
	ids    []ID
	keys   []string
	values [][]byte // found
}

// plan cuts the IDs at the positions asked for into batches. Those of servers that are not asked
// now are left out.
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
		// All keys in one string, all IDs in one array.
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
		// The batches of a server are of about one size: the last one is no round trip for a few
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

// start runs the batches. It reports false when the client is closed.
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

// turn waits until a batch may run, but not past the deadline or the caller's patience.
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

// run asks the server for a batch.
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
		v = verdictNothing // the time went to waiting for a turn
	}
	size := c.open(b, items)
	if err != nil {
		c.counters.failed.Add(1)
		if kindOf(err) == kindTimeout {
			c.counters.timedOut.Add(1)
		}
		c.metrics.failures.WithLabelValues(opGetMulti, kindOf(err)).Inc()
		c.o.Logger.Debug("values were not read", "client", c.o.Name, "server", b.server.addr.addr,
			"keys", len(b.keys), "found", len(items), "err", err)
		return
	}
	c.metrics.duration[opGetMulti].Observe(time.Since(began).Seconds())
	c.metrics.size[opGetMulti].Observe(float64(size))
}

// open verifies the values that were received and returns their bytes.
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
			if fault != faultVersion { // another version of larder has sealed it
				c.metrics.corruptions.Mended(telemetry.CorruptCache, 1)
			}
			corrupt = true
			continue
		}
		// Whoever keeps the value keeps no more than it: gomemcache's array has an envelope more,
		// which takes it to the allocator's next size.
		b.values[i] = slices.Clip(bytes.Clone(payload))
		total += len(payload)
	}
	if corrupt {
		c.metrics.failures.WithLabelValues(opGetMulti, kindCorrupt).Inc()
	}
	return total
}
