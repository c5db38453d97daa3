package memcached

import (
	"sync/atomic"
	"time"
)

// Stats are the counts of a client since it was made.
type Stats struct {
	// Requests counts values requested, Hits and HitBytes values found. PendingHits is the part of
	// Hits that was found before it was written.
	Requests, Hits, HitBytes, PendingHits int64
	// Corrupt counts values that were received and failed verification.
	Corrupt int64
	// Skipped counts batches that were not sent because a breaker was open, no server was known or
	// no turn was free in time.
	Skipped int64
	// Failed counts batches without a complete reply, which are misses for the rest. TimedOut is
	// the part of them that timed out.
	Failed, TimedOut int64

	// Written counts values and deletions, WrittenBytes the bytes of the values.
	Written, WrittenBytes int64
	// Dropped counts writes that were dropped, by reason.
	Dropped Dropped

	// Pending counts values and deletions that are not written yet.
	Pending      int
	PendingBytes int64

	// Servers counts known servers, ReadsOpen and WritesOpen those that are not read from or
	// written to now.
	Servers, ReadsOpen, WritesOpen int
	// ReadDeadline is the current time limit of a read.
	ReadDeadline time.Duration
}

// Dropped counts writes that were not made.
type Dropped struct {
	Full        int64 // the queue was full, or the client closed
	TooLarge    int64 // larger than MaxItemSize, or than the server's limit
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

// Stats returns a snapshot; its counts are not from one instant.
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
