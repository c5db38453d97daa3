package shards

import (
	"context"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestResizeAndLoseAZone: 3 -> 5 -> 3 shards in two zones behind a real Querier, then one zone is
// killed. Every query finds every sample, except for those that run while the zone is killed: these
// may fail, and say so. The Querier receives each block once, and blocks that move twice. After
// each hand-over, dashboards that were not queried meanwhile find their pages in the caches.
//
// The Querier wait is as short as a real Querier allows, which asks for Info every 5 seconds. The
// long form grows and shrinks three times.
func TestResizeAndLoseAZone(t *testing.T) {
	t.Parallel()
	rounds := 1
	if full() {
		rounds = 3
	}
	c := newCluster(t, 12*time.Second)
	epoch := 1
	c.configure(epoch, 3)
	c.start(0, 3)
	q := startQuerier(t, c)
	q.groups(3)
	c.ready(3)
	q.knows(3)
	b := &bytesOf{q: q}
	rest := b.perQuery()
	q.complete(dashboards, 6, "before the first change")
	b.checkZones("two zones", "a", "b")
	h := newHistory(t, "at rest")
	stop := b.continuously(h, 1, 50*time.Millisecond)
	for range rounds {
		h.enter("growing to 5")
		c.start(3, 5)
		q.groups(5)
		epoch++
		c.configure(epoch, 5)
		c.ready(5)
		q.knows(5)
		b.checkMoving(rest, "while growing")
		c.settled(epoch)
		b.checkWarm("after growing", func(m *member) bool { return m.ordinal >= 3 })
		q.knows(5)
		b.checkRest(rest, "with 5 shards")

		h.enter("shrinking to 3")
		epoch++
		c.configure(epoch, 3)
		c.taken(epoch)
		b.checkMoving(rest, "while shrinking")
		c.settled(epoch)
		b.checkWarm("after shrinking", func(m *member) bool { return m.ordinal < 3 })
		b.checkRest(rest, "after shrinking")
		q.groups(3)
		q.knows(3)
		c.stop(syscall.SIGTERM, func(m *member) bool { return m.ordinal >= 3 })
	}
	stop()

	h.enter("at rest, more queries")
	stop = b.continuously(h, 4, time.Millisecond)
	q.complete(shelf, 20, "before a zone was killed")
	h.enterFault("zone b is killed")
	c.stop(syscall.SIGKILL, inZone("b"))
	h.enter("zone b is gone")
	q.complete(shelf, 20, "after a zone was killed")
	b.checkZones("one zone", "a")
	stop()
	h.check(20)
}

// full reports whether the long form runs.
func full() bool { return os.Getenv("INTEROP_FULL") != "" }

// bytesOf measures what the Querier receives, and what that costs.
type bytesOf struct {
	q  *querier
	mu sync.RWMutex // locked by a measurement, so that it has only its own queries
}

// chunkBytes is the metric of the bytes of chunks that a process has sent.
const chunkBytes = "thanos_bucket_store_sent_chunk_size_bytes_sum"

// perQuery returns the bytes of chunks that members send for one query.
func (b *bytesOf) perQuery() float64 {
	b.q.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	const n = 5
	before := b.q.c.sum(everyMember, chunkBytes)
	b.q.complete(shelf, n, "measuring bytes")
	return (b.q.c.sum(everyMember, chunkBytes) - before) / n
}

// checkZones logs what a query costs the members of each zone, and checks that the Querier reads
// from all of them.
func (b *bytesOf) checkZones(when string, in ...string) {
	b.q.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 40
	if full() {
		n = 1000
	}
	const cpuSeconds = "process_cpu_seconds_total"
	bytes, cpu := map[string]float64{}, map[string]float64{}
	for _, zone := range in {
		bytes[zone] = -b.q.c.sum(inZone(zone), chunkBytes)
		cpu[zone] = -b.q.c.sum(inZone(zone), cpuSeconds)
	}
	b.q.complete(shelf, n, "measuring zones")
	total := 0.0
	for _, zone := range in {
		cpu[zone] += b.q.c.sum(inZone(zone), cpuSeconds)
		bytes[zone] += b.q.c.sum(inZone(zone), chunkBytes)
		total += bytes[zone]
	}
	for _, zone := range in {
		share := bytes[zone] / total
		b.q.t.Logf("%s: zone %s sends %.0f bytes of chunks a query, %.2f of all, needs %.2f ms "+
			"of CPU", when, zone, bytes[zone]/float64(n), share, 1000*cpu[zone]/float64(n))
		if fair := 1 / float64(len(in)); share < fair-0.1 {
			b.q.t.Errorf("%s: zone %s sends %.2f of the bytes, want about %.2f", when, zone, share,
				fair)
		}
	}
}

// checkWarm checks that the members that took blocks over find pages of dashboards in their caches.
// No query has asked for these during the hand-over. In the long form it asks for a minute.
func (b *bytesOf) checkWarm(when string, match func(*member) bool) {
	b.q.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	const hits, touched = "larder_pages_hits_total", "larder_pages_touched_total"
	found, needed := -b.q.c.sum(match, hits), -b.q.c.sum(match, touched)
	for start := time.Now(); ; {
		b.q.complete(dashboards, 2, when) // one for each zone
		if !full() || time.Since(start) > time.Minute {
			break
		}
	}
	found += b.q.c.sum(match, hits)
	needed += b.q.c.sum(match, touched)
	b.q.t.Logf("%s: %.0f of %.0f pages were in a cache", when, found, needed)
	if needed == 0 || found < 0.85*needed {
		b.q.t.Errorf("%s: %.0f of %.0f pages were in a cache, want 85 %%", when, found, needed)
	}
}

// checkRest checks that each block is read once.
func (b *bytesOf) checkRest(rest float64, when string) {
	b.q.t.Helper()
	got := b.perQuery() / rest
	b.q.t.Logf("%s: %.3f times the bytes of one zone", when, got)
	if got < 0.999 || got > 1.05 {
		b.q.t.Errorf("%s: %.3f times the bytes of one zone, want at most 1.05", when, got)
	}
}

// checkMoving checks that only blocks that move are read twice. On a busy machine the change may
// have ended before.
func (b *bytesOf) checkMoving(rest float64, when string) {
	b.q.t.Helper()
	share := b.q.c.sum(inZone("a"), "larder_shard_blocks_leaving") / blocks
	got := b.perQuery() / rest
	b.q.t.Logf("%s: %.3f times the bytes of one zone, %.3f of the blocks move", when, got, share)
	if got > 1.05+share {
		b.q.t.Errorf("%s: %.3f times the bytes of one zone, want at most %.3f", when, got,
			1.05+share)
	}
}

// continuously queries with so many workers until the returned function is called. Each worker
// pauses between its queries.
func (b *bytesOf) continuously(h *history, workers int, pause time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(b.q.t.Context())
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for {
				b.mu.RLock()
				ok := h.ask(ctx, func(ctx context.Context) (int, error) {
					return b.q.count(ctx, shelf)
				})
				b.mu.RUnlock()
				if !ok {
					return
				}
				<-tick.C
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// taken waits until every member has taken on an epoch and moves blocks or has none to move.
func (c *cluster) taken(epoch int) {
	c.t.Helper()
	for _, m := range c.members {
		if err := m.Wait(c.t.Context(), func(context.Context) bool {
			return c.epoch(m) == epoch
		}); err != nil {
			c.t.Fatal(err)
		}
	}
}
