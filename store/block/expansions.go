package block

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// smallExpansion is the size up to which an expansion is small: what the matchers of a
	// dashboard take. They have a lane of their own, so that none waits behind a regular expression
	// over a million values.
	smallExpansion = 1 << 20
	// smallExpansions is the part of the account that only small expansions have, as 1/n.
	smallExpansions = 4
)

// Expansions is the account of the bytes that the expansions of a process take while they run:
// lists found, their pages, what they are decoded into. They are shared by requests, so that no
// request's reservation holds them. What comes of them is the requests' again.
//
// INVARIANT: an expansion takes its bytes in one step, before it holds any but for the places of a
// few lists (markedValues of a label name, 16 bytes each, and a bit for each of its values), and
// waits for nothing but reads of the bucket while it has them. So expansions cannot wait for one
// another in a circle.
type Expansions struct {
	small, large expansionLane
}

type expansionLane struct {
	size   int64
	free   *semaphore.Weighted
	in     atomic.Int64
	queued atomic.Int64
}

// NewExpansions makes an account of so many bytes and registers its metrics. An expansion that
// would not fit into an idle process is refused.
func NewExpansions(bytes int64, reg prometheus.Registerer) *Expansions {
	e := &Expansions{}
	e.small.size = max(bytes/smallExpansions, smallExpansion)
	e.large.size = max(bytes-e.small.size, 0)
	f := promauto.With(reg)
	for name, lane := range map[string]*expansionLane{"small": &e.small, "large": &e.large} {
		lane.free = semaphore.NewWeighted(lane.size)
		for state, value := range map[string]func() int64{
			"limit": func() int64 { return lane.size }, "in_use": lane.in.Load, "waiting": lane.queued.Load,
		} {
			f.NewGaugeFunc(prometheus.GaugeOpts{
				Name:        "larder_postings_expansion_bytes",
				Help:        "Bytes that finding postings may take (limit), takes now (in_use), and waits for (waiting).",
				ConstLabels: prometheus.Labels{"lane": name, "state": state},
			}, func() float64 { return float64(value()) })
		}
	}
	return e
}

// room is what one expansion has of the account; nil: nobody counts.
type room struct {
	of   *Expansions
	lane *expansionLane // nil: it has nothing
	has  int64
}

// room returns the room of a new expansion. It must be closed.
func (e *Expansions) room() *room {
	if e == nil {
		return nil
	}
	return &room{of: e}
}

// take waits until the expansion may hold n bytes. It is called once.
func (r *room) take(ctx context.Context, n int64) error {
	if r == nil {
		return nil
	}
	lane := &r.of.small
	if n > smallExpansion {
		lane = &r.of.large
	}
	if n > lane.size {
		return status.Errorf(
			codes.ResourceExhausted,
			"to find the series that match takes an estimated %d bytes, more than the %d bytes that are for it of the memory for requests (--store.request-bytes)",
			n,
			lane.size,
		)
	}
	lane.queued.Add(n)
	err := lane.free.Acquire(ctx, n)
	lane.queued.Add(-n)
	if err != nil {
		return fmt.Errorf("wait for %d bytes to find postings with: %w", n, err)
	}
	lane.in.Add(n)
	r.lane, r.has = lane, n
	return nil
}

// close gives everything back.
func (r *room) close() {
	if r == nil || r.lane == nil {
		return
	}
	r.lane.in.Add(-r.has)
	r.lane.free.Release(r.has)
	r.lane = nil
}
