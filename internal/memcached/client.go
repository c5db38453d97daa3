package memcached

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"larder/internal/panics"
)

// Client of a set of memcached servers. It is safe for concurrent use; make it with New.
type Client struct {
	o         Options
	discovery *discovery
	queue     *queue
	turns     chan struct{} // one for each batch that may run
	metrics   *metrics
	panics    *panics.Guard
	counters  counters

	ring atomic.Pointer[ring] // stored by update only, which one goroutine calls

	stop    context.CancelFunc // the dials and the watcher
	dials   dials
	workers sync.WaitGroup // that write
	watcher sync.WaitGroup // that looks names up

	life   sync.RWMutex
	closed bool           // guarded by life
	reads  sync.WaitGroup // batches; added to with life held
}

// New returns a client. Only what is wrong with the options is an error: servers that cannot be
// found, or reached, make for misses.
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

// update makes the servers at the endpoints those that are used. It keeps those that are, with
// their connections and breakers.
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

// watch looks names up again and again, and closes connections that nobody uses.
func (c *Client) watch(ctx context.Context) {
	for {
		wait := c.o.DNSInterval
		if c.discovery.dynamic() {
			_ = c.panics.Do(func() error { // a resolver's
				if endpoints, changed := c.discovery.lookUp(ctx); changed {
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

// readDeadline is how long a read may take now.
func (c *Client) readDeadline() time.Duration {
	if c.o.FirstByte != nil {
		if d := c.o.FirstByte(); d > 0 {
			return min(c.o.Timeout, max(c.o.MinReadTimeout, d))
		}
	}
	return c.o.Timeout
}

// Set stores a value, later: until then it is pending, and found. The value must not change any
// more. It is dropped, and counted, where it is too large or too much is pending: then it is as if
// Set had not been called.
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

// Delete removes a value, later: until then it is not found. Values that wait to be written leave
// it its place, but where the server cannot be reached it is lost. That does no harm: what is read
// is verified, and who found a value to be bad will find it again.
func (c *Client) Delete(id ID) {
	if !c.queue.put(write{id: id, remove: true}) {
		c.counters.full.Add(1)
		c.skip(opDelete, skippedFull)
	}
}

// Close ends the client. What is pending is still written where that takes no longer than a second;
// calls that run or come later are misses.
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

// expiration is a TTL as memcached takes it: seconds from now, up to thirty days; above, a point in
// time.
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
