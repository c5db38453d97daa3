package postings

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
	// smallExpansion is the largest size of a small expansion: what the matchers of a dashboard
	// need. Small expansions have a lane of their own, so that none waits behind a regular
	// expression over a million values.
	smallExpansion = 1 << 20
	// smallExpansions is the part of the account that only small expansions may use, as 1/n.
	smallExpansions = 4
)

// Account bounds the memory of the expansions of a process while they run: lists found, their
// pages, and decoded postings. Requests share expansions, therefore no request reserves these
// bytes. It does reserve the bytes of the postings that it gets.
//
// INVARIANT: expansions never wait for one another in a circle, because an expansion reserves its
// bytes in one step, and then waits only for reads of the bucket. Before that step it holds 16
// bytes for each of at most markedValues lists of a label name, and a bit for each value of the
// name.
type Account struct {
	small, large expansionLane
}

type expansionLane struct {
	size   int64
	free   *semaphore.Weighted
	in     atomic.Int64
	queued atomic.Int64
}

// NewAccount returns an account of the given bytes and registers its metrics. It rejects an
// expansion that needs more bytes than its lane has.
func NewAccount(bytes int64, reg prometheus.Registerer) *Account {
	a := &Account{}
	a.small.size = max(bytes/smallExpansions, smallExpansion)
	a.large.size = max(bytes-a.small.size, 0)
	f := promauto.With(reg)
	for name, lane := range map[string]*expansionLane{"small": &a.small, "large": &a.large} {
		lane.free = semaphore.NewWeighted(lane.size)
		for state, value := range map[string]func() int64{
			"limit":   func() int64 { return lane.size },
			"in_use":  lane.in.Load,
			"waiting": lane.queued.Load,
		} {
			f.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "larder_postings_expansion_bytes",
				Help: "Memory for resolving matchers to postings, in bytes: " +
					"its limit, what is in use, and what expansions wait for.",
				ConstLabels: prometheus.Labels{"lane": name, "state": state},
			}, func() float64 { return float64(value()) })
		}
	}
	return a
}

// reservation is what one expansion has reserved of an account. The nil reservation has no limit.
type reservation struct {
	account *Account
	lane    *expansionLane // nil: nothing is reserved
	bytes   int64
}

// reservation returns an empty reservation. It must be released.
func (a *Account) reservation() *reservation {
	if a == nil {
		return nil
	}
	return &reservation{account: a}
}

// reserve waits until n bytes are free and reserves them. It is called once.
func (r *reservation) reserve(ctx context.Context, n int64) error {
	if r == nil {
		return nil
	}
	lane := &r.account.small
	if n > smallExpansion {
		lane = &r.account.large
	}
	if n > lane.size {
		return status.Errorf(codes.ResourceExhausted,
			"resolving the matchers needs about %d bytes; the limit is %d "+
				"(a part of --store.request-bytes): use narrower matchers", n, lane.size)
	}
	lane.queued.Add(n)
	err := lane.free.Acquire(ctx, n)
	lane.queued.Add(-n)
	if err != nil {
		return fmt.Errorf("wait for %d bytes of memory to resolve the matchers: %w", n, err)
	}
	lane.in.Add(n)
	r.lane, r.bytes = lane, n
	return nil
}

// release releases all bytes. It may be called more than once.
func (r *reservation) release() {
	if r == nil || r.lane == nil {
		return
	}
	r.lane.in.Add(-r.bytes)
	r.lane.free.Release(r.bytes)
	r.lane = nil
}
