package memcached

import (
	"sync/atomic"
	"time"
)

// Stats of a client since it was made.
type Stats struct {
	// Requests are values asked for; Hits and HitBytes those found, PendingHits of them before they
	// were written.
	Requests, Hits, HitBytes, PendingHits int64
	// Corrupt values were received and did not verify.
	Corrupt int64
	// Skipped batches were not asked for, because a breaker was open, no server known or no turn
	// free in time.
	Skipped int64
	// Failed batches brought less than a whole reply, and are misses for the rest; TimedOut is
	// their part that took too long.
	Failed, TimedOut int64

	// Written values and deletions, and the bytes of the values.
	Written, WrittenBytes int64
	// Dropped writes, by reason.
	Dropped Dropped

	// Pending values and deletions are not written yet.
	Pending      int
	PendingBytes int64

	// Servers that are known, and how many of them are not read from, or not written to, now.
	Servers, ReadsOpen, WritesOpen int
	// ReadDeadline in force.
	ReadDeadline time.Duration
}

// Dropped counts writes that were not made.
type Dropped struct {
	Full        int64 // too many or too much waited, or the client was closed
	TooLarge    int64 // larger than MaxItemSize, or than the server takes
	BreakerOpen int64
	NoServer    int64
	Failed      int64
}

// counters of a client.
type counters struct {
	requests, hits, hitBytes, pendingHits atomic.Int64
	corrupt, skipped, failed, timedOut    atomic.Int64
	written, writtenBytes                 atomic.Int64
	full, tooLarge, breaker, none, lost   atomic.Int64
}

// Stats returns a snapshot; its figures are not of one instant.
func (c *Client) Stats() Stats {
	n := &c.counters
	st := Stats{
		Requests:     n.requests.Load(),
		Hits:         n.hits.Load(),
		HitBytes:     n.hitBytes.Load(),
		PendingHits:  n.pendingHits.Load(),
		Corrupt:      n.corrupt.Load(),
		Skipped:      n.skipped.Load(),
		Failed:       n.failed.Load(),
		TimedOut:     n.timedOut.Load(),
		Written:      n.written.Load(),
		WrittenBytes: n.writtenBytes.Load(),
		Dropped: Dropped{
			Full:        n.full.Load(),
			TooLarge:    n.tooLarge.Load(),
			BreakerOpen: n.breaker.Load(),
			NoServer:    n.none.Load(),
			Failed:      n.lost.Load(),
		},
		ReadDeadline: c.readDeadline(),
	}
	st.Pending, st.PendingBytes = c.queue.waiting()
	for _, s := range c.ring.Load().servers {
		st.Servers++
		if state, _ := s.readBreaker.now(); state != breakerClosed {
			st.ReadsOpen++
		}
		if state, _ := s.writeBreaker.now(); state != breakerClosed {
			st.WritesOpen++
		}
	}
	return st
}
