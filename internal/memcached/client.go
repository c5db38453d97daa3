package memcached

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"larder/internal/panics"
)

// Client reads and writes the values of a set of memcached servers. It is safe for concurrent use.
// Make it with New.
type Client struct {
	o         Options
	discovery *discovery
	queue     *queue
	turns     chan struct{} // one token for each running batch
	metrics   *metrics
	panics    *panics.Guard
	counters  counters

	ring atomic.Pointer[ring] // only update stores it, from one goroutine at a time

	stop    context.CancelFunc // ends the dials and the watcher
	dials   dials
	workers sync.WaitGroup // writes
	watcher sync.WaitGroup // resolves names

	life   sync.RWMutex
	closed bool           // guarded by life
	reads  sync.WaitGroup // batches; added to with life held
}

// New returns a client. Only invalid options are errors: servers that are not found or not
// reachable cause misses.
func New(o Options) (*Client, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	d, err := newDiscovery(&o)
	if err != nil {
		return nil, err
	}
	c := &Client{
		o:         o,
		discovery: d,
		queue:     newQueue(o.MaxAsyncBufferSize, o.MaxAsyncBufferBytes),
		turns:     make(chan struct{}, o.MaxGetMultiConcurrency),
		panics:    panics.New("memcached", o.Logger, o.Registerer),
	}
	c.dials.panics = c.panics
	c.dials.ctx, c.stop = context.WithCancel(context.Background())
	c.update(d.listed())
	if c.metrics, err = newMetrics(c); err != nil {
		return nil, err
	}
	d.metrics = c.metrics
	c.watcher.Go(func() { c.watch(c.dials.ctx) })
	for range o.MaxAsyncConcurrency {
		c.workers.Go(c.work)
	}
	return c, nil
}

// update sets the servers in use to the endpoints. A server that stays keeps its connections and
// breakers.
func (c *Client) update(endpoints []endpoint) {
	known := map[endpoint]*server{}
	if old := c.ring.Load(); old != nil {
		for _, s := range old.servers {
			known[s.addr] = s
		}
	}
	var servers []*server
	for _, e := range endpoints {
		s := known[e]
		if s == nil {
			s = newServer(e, &c.o, &c.dials)
		}
		delete(known, e)
		servers = append(servers, s)
	}
	c.ring.Store(newRing(servers))
	for _, s := range known {
		s.retire()
	}
}

// watch resolves names periodically, and closes idle connections.
func (c *Client) watch(ctx context.Context) {
	for {
		wait := c.o.DNSInterval
		if c.discovery.dynamic() {
			_ = c.panics.Do(func() error { // the resolver may panic
				if endpoints, changed := c.discovery.resolveAll(ctx); changed {
					c.update(endpoints)
				}
				return nil
			})
			if len(c.ring.Load().servers) == 0 {
				wait = min(wait, retryUnknown)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		for _, s := range c.ring.Load().servers {
			s.reads.drop(time.Now().Add(-idleTime))
			s.writes.drop(time.Now().Add(-idleTime))
		}
	}
}

// readDeadline returns the time that a read may take now.
func (c *Client) readDeadline() time.Duration {
	if c.o.FirstByte != nil {
		if d := c.o.FirstByte(); d > 0 {
			return min(c.o.Timeout, max(c.o.MinReadTimeout, d))
		}
	}
	return c.o.Timeout
}

// Set stores a value asynchronously. Look-ups find it while its write is pending. The value must
// not change after the call. If it is too large or the queue is full, it is dropped and counted,
// and the call has no effect.
func (c *Client) Set(id ID, value []byte) {
	if int64(len(value)) > c.o.MaxItemSize {
		c.counters.tooLarge.Add(1)
		c.skip(opSet, skippedTooLarge)
		return
	}
	if value == nil {
		value = []byte{}
	}
	if !c.queue.put(write{id: id, value: value}) {
		c.counters.full.Add(1)
		c.skip(opSet, skippedFull)
	}
}

// Delete removes a value asynchronously. Look-ups no longer find it while the deletion is pending.
// A full queue of values does not block it, but it is lost if the server is not reachable. That
// does no harm, because a reader verifies what it reads and will delete a bad value again.
func (c *Client) Delete(id ID) {
	if !c.queue.put(write{id: id, remove: true}) {
		c.counters.full.Add(1)
		c.skip(opDelete, skippedFull)
	}
}

// Close ends the client. Pending writes are carried out for at most a second. Later calls are
// misses.
func (c *Client) Close() {
	c.life.Lock()
	if c.closed {
		c.life.Unlock()
		return
	}
	c.closed = true
	c.life.Unlock()

	c.queue.close()
	late := time.AfterFunc(closeDrain, func() { c.counters.full.Add(int64(c.queue.drop())) })
	c.workers.Wait()
	late.Stop()
	c.reads.Wait()
	c.stop()
	c.watcher.Wait()
	c.dials.running.Wait()
	for _, s := range c.ring.Load().servers {
		s.retire()
	}
	c.metrics.unregister()
}

// expiration returns a TTL as memcached expects it: seconds from now up to thirty days, above that
// a point in time.
func expiration(ttl time.Duration, now time.Time) int32 {
	seconds := int64((ttl + time.Second - 1) / time.Second)
	if ttl <= maxTTLRelative {
		return int32(seconds)
	}
	at := now.Unix() + seconds
	if at > math.MaxInt32 {
		return int32(maxTTLRelative / time.Second)
	}
	return int32(at)
}
