package shards

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestResizeAndLoseAZone: 3 -> 5 -> 3 shards in two zones behind a real Querier, then one zone is
// killed. Every query finds every sample, except for those that run while the zone is killed: these
// may fail, and say so. The Querier receives each block once, and blocks that move twice.
//
// The Querier wait is as short as a real Querier allows, which asks for Info every 5 seconds. The
// long form grows and shrinks three times.
func TestResizeAndLoseAZone(t *testing.T) {
	rounds := 1
	if os.Getenv("INTEROP_FULL") != "" {
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
	stop := b.continuously()
	for range rounds {
		c.start(3, 5)
		q.groups(5)
		epoch++
		c.configure(epoch, 5)
		c.ready(5)
		q.knows(5)
		b.checkMoving(rest, "while growing")
		c.settled(epoch)
		q.knows(5)
		b.checkRest(rest, "with 5 shards")

		epoch++
		c.configure(epoch, 3)
		c.taken(epoch)
		b.checkMoving(rest, "while shrinking")
		c.settled(epoch)
		b.checkRest(rest, "after shrinking")
		q.groups(3)
		q.knows(3)
		c.stop(syscall.SIGTERM, func(m *member) bool { return m.ordinal >= 3 })
	}
	asked, wrong := stop()
	t.Logf("%d queries while the count changed, %d of them wrong", asked, len(wrong))
	if asked < 20 || len(wrong) > 0 {
		t.Errorf("%d of %d queries were wrong: %v", len(wrong), asked, errors.Join(wrong...))
	}

	c.stop(syscall.SIGKILL, func(m *member) bool { return m.zone == "b" })
	for i := range 20 {
		if n, err := q.count(t.Context()); err != nil || n != samples {
			t.Errorf("query %d after a zone was killed: %d samples of %d, %v", i, n, samples, err)
		}
	}
}

// bytesOf measures what the Querier receives.
type bytesOf struct {
	q  *querier
	mu sync.Mutex // held during each query, so that a measurement has only its own
}

// chunkBytes is the metric of the bytes of chunks that a process has sent.
const chunkBytes = "thanos_bucket_store_sent_chunk_size_bytes_sum"

// perQuery returns the bytes of chunks that members send for one query.
func (b *bytesOf) perQuery() float64 {
	b.q.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	const n = 5
	before := b.q.c.sum(chunkBytes)
	for range n {
		if got, err := b.q.count(b.q.t.Context()); err != nil || got != samples {
			b.q.t.Errorf("%d samples of %d, %v", got, samples, err)
		}
	}
	return (b.q.c.sum(chunkBytes) - before) / n
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
	share := b.q.c.sum("larder_shard_blocks_leaving", "a") / blocks
	got := b.perQuery() / rest
	b.q.t.Logf("%s: %.3f times the bytes of one zone, %.3f of the blocks move", when, got, share)
	if got > 1.05+share {
		b.q.t.Errorf("%s: %.3f times the bytes of one zone, want at most %.3f", when, got,
			1.05+share)
	}
}

// continuously queries until the returned function is called, which returns the number of queries
// and what was wrong.
func (b *bytesOf) continuously() (stop func() (asked int, wrong []error)) {
	ctx, cancel := context.WithCancel(b.q.t.Context())
	done := make(chan struct{})
	asked := 0
	var wrong []error
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			b.mu.Lock()
			n, err := b.q.count(ctx)
			b.mu.Unlock()
			if ctx.Err() != nil {
				return
			}
			if asked++; err != nil || n != samples {
				wrong = append(wrong, fmt.Errorf("query %d: %d samples of %d, %w", asked, n,
					samples, err))
			}
		}
	}()
	return func() (int, []error) {
		cancel()
		<-done
		return asked, wrong
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
