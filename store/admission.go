package store

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// AllowanceOptions say how many bytes requests may hold together.
type AllowanceOptions struct {
	// Bytes is what all running requests may hold together; default 1 GiB. A request that needs more than Bytes less SmallLane
	// is refused. Less memory for requests makes them wait, or refuses them; more is taken from caches, or from the kernel's patience.
	Bytes int64
	// SmallLane is the part of Bytes that large requests leave to small ones, in bytes; default an eighth of Bytes, at most 64 MiB.
	// It is what keeps dashboards alive beside an export of everything.
	SmallLane int64
	// SmallRequest is the size in bytes up to which a request is small; default 1 MiB, and never more than SmallLane.
	SmallRequest int64
}

const (
	defaultAllowance    = 1 << 30
	maxDefaultSmallLane = 64 << 20
	defaultSmallRequest = 1 << 20
)

// Allowance is the process-wide budget of bytes that requests hold. A request reserves its estimate once, waiting for its turn, and
// then never waits again: what it wants later it gets at once or not at all. That, and the rule that a request reserves before it
// holds anything, is why requests cannot wait for one another in a circle.
//
// There are two lanes, each first come, first served. Large requests never hold the small lane. Small requests use whatever is free
// while no large one waits, and only their lane while one does. So neither kind starves: a small request finds its lane as soon as
// the small ones before it end, and a large one that waits gets what running requests give back.
//
// INVARIANT: small + large <= total, and large <= total - lane, at all times.
type Allowance struct {
	total, lane, smallRequest int64

	mu         sync.Mutex // guards everything below, and the reservations' fields; never held while waiting or calling out
	small      int64      // bytes held by small requests
	large      int64      // bytes held by large requests
	waitSmall  list.List  // of *waiter, oldest first
	waitLarge  list.List  // of *waiter, oldest first
	waitingFor int64      // bytes that waiters wait for

	waited  *prometheus.HistogramVec
	refused *prometheus.CounterVec
}

// waiter is a Reserve that waits for its turn.
type waiter struct {
	n       int64
	granted chan struct{} // closed under the lock, once the bytes are counted as held
}

// lane names in metrics.
const (
	laneSmall = "small"
	laneLarge = "large"
)

// NewAllowance makes an allowance and registers its metrics.
func NewAllowance(opts AllowanceOptions, reg prometheus.Registerer) *Allowance {
	if opts.Bytes <= 0 {
		opts.Bytes = defaultAllowance
	}
	if opts.SmallLane <= 0 {
		opts.SmallLane = min(opts.Bytes/8, maxDefaultSmallLane)
	}
	if opts.SmallRequest <= 0 {
		opts.SmallRequest = defaultSmallRequest
	}
	a := &Allowance{total: opts.Bytes, lane: min(opts.SmallLane, opts.Bytes)}
	a.smallRequest = min(opts.SmallRequest, a.lane) // A small request must fit into its lane, or it might wait for ever.

	f := promauto.With(reg)
	for state, value := range map[string]func() int64{
		"limit":   func() int64 { return a.total },
		"in_use":  func() int64 { return a.small + a.large },
		"waiting": func() int64 { return a.waitingFor },
	} {
		f.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "larder_request_allowance_bytes",
			Help:        "Bytes that requests may hold together (limit), hold now (in_use), and wait for (waiting).",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 {
			a.mu.Lock()
			defer a.mu.Unlock()
			return float64(value())
		})
	}
	for lane, queue := range map[string]*list.List{laneSmall: &a.waitSmall, laneLarge: &a.waitLarge} {
		f.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "larder_request_allowance_waiting",
			Help:        "Requests that wait for their bytes.",
			ConstLabels: prometheus.Labels{"lane": lane},
		}, func() float64 {
			a.mu.Lock()
			defer a.mu.Unlock()
			return float64(queue.Len())
		})
	}
	a.waited = f.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "larder_request_allowance_wait_seconds",
		Help:    "Seconds that requests waited for their bytes.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
	}, []string{"lane"})
	a.refused = f.NewCounterVec(prometheus.CounterOpts{
		Name: "larder_request_allowance_refused_total",
		Help: "Requests that got no bytes: too large for the allowance, or given up by the client while waiting.",
	}, []string{"reason"})
	return a
}

// Reserve waits until n bytes are free for a request of that size, or ctx is done. Release gives them back. Its errors carry a gRPC
// status: ResourceExhausted at once for a request that would not fit into an idle process (it is refused, not cut down to size,
// because the bytes would be used all the same), and that of ctx for one that gave up.
//
// A request reserves once. If it held one reservation while it waited for another, two such requests could wait for each other.
func (a *Allowance) Reserve(ctx context.Context, n int64) (*Reservation, error) {
	n = max(0, n)
	lane := laneSmall
	if n > a.smallRequest {
		lane = laneLarge
		if most := a.most(); n > most {
			a.refused.WithLabelValues("too_large").Inc()
			return nil, status.Errorf(codes.ResourceExhausted,
				"the request needs an estimated %d bytes, more than the %d bytes that one request may have of the request allowance of %d bytes (--store.request-bytes)",
				n, most, a.total)
		}
	}
	start := time.Now()
	if err := a.acquire(ctx, n, lane); err != nil {
		a.refused.WithLabelValues("gave_up").Inc()
		return nil, status.Errorf(status.FromContextError(err).Code(),
			"waited %s for %d bytes of the request allowance of %d bytes (--store.request-bytes): %s",
			time.Since(start).Round(time.Millisecond), n, a.total, err)
	}
	a.waited.WithLabelValues(lane).Observe(time.Since(start).Seconds())
	r := &Reservation{a: a}
	if lane == laneSmall {
		r.small = n
	} else {
		r.large = n
	}
	return r, nil
}

// most is what one request may have.
func (a *Allowance) most() int64 { return a.total - a.lane }

func (a *Allowance) acquire(ctx context.Context, n int64, lane string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	queue := &a.waitSmall
	if lane == laneLarge {
		queue = &a.waitLarge
	}
	w := &waiter{n: n, granted: make(chan struct{})}
	a.mu.Lock()
	e := queue.PushBack(w)
	a.waitingFor += n
	a.grant()
	a.mu.Unlock()

	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-w.granted:
		// Both happened. Nobody wants the bytes any more.
		if lane == laneSmall {
			a.small -= n
		} else {
			a.large -= n
		}
	default:
		queue.Remove(e)
		a.waitingFor -= n
	}
	a.grant() // What stood behind this request may fit.
	return ctx.Err()
}

// grant lets in whoever may hold bytes now. It is called with the lock held after every change that could make room.
func (a *Allowance) grant() {
	for {
		switch {
		case a.letIn(&a.waitLarge, a.fitsLarge, &a.large):
		case a.letIn(&a.waitSmall, a.fitsSmall, &a.small):
		default:
			return
		}
	}
}

// letIn grants the oldest waiter of a queue its bytes, if they fit.
func (a *Allowance) letIn(queue *list.List, fits func(int64) bool, held *int64) bool {
	e := queue.Front()
	if e == nil {
		return false
	}
	w := e.Value.(*waiter)
	if !fits(w.n) {
		return false
	}
	queue.Remove(e)
	a.waitingFor -= w.n
	*held += w.n
	close(w.granted)
	return true
}

func (a *Allowance) fitsLarge(n int64) bool {
	return n <= a.total-a.lane-a.large && n <= a.total-a.small-a.large
}

func (a *Allowance) fitsSmall(n int64) bool {
	if n > a.total-a.small-a.large {
		return false
	}
	return a.waitLarge.Len() == 0 || n <= a.lane-a.small
}

// TryReserve is Reserve for work that no request waits for. It gets its bytes at once or not at all: if no request waits for its own, and if half of
// the allowance stays free for those to come. ever is false for what would not get them in an idle process either.
func (a *Allowance) TryReserve(n int64) (r *Reservation, ever bool) {
	n = max(0, n)
	if n > a.total/2 || n > a.total-a.lane {
		return nil, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	r = &Reservation{a: a}
	if a.waitLarge.Len() > 0 || a.waitSmall.Len() > 0 || n > a.total/2-a.small-a.large || !r.grow(n) {
		return nil, true
	}
	return r, true
}

// Waiting reports whether requests wait for their bytes.
func (a *Allowance) Waiting() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waitLarge.Len() > 0 || a.waitSmall.Len() > 0
}

// Busy reports whether TryReserve would give nothing: requests wait, or half of the allowance is in use.
func (a *Allowance) Busy() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waitLarge.Len() > 0 || a.waitSmall.Len() > 0 || a.small+a.large >= a.total/2
}

// InUse is the number of bytes that requests hold now.
func (a *Allowance) InUse() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.small + a.large
}

// Reservation is what one request holds of an Allowance. It is safe for concurrent use. After Release it holds nothing and cannot grow.
type Reservation struct {
	a *Allowance
	// Guarded by a.mu. INVARIANT: a reservation is small as long as it is no larger than a small request; what takes it beyond
	// that is counted as large.
	small, large int64
	released     bool
}

// TryGrow adds n bytes if they are free and no request waits for its own. It never waits: it is for look-ahead, which is the
// first thing to go when memory is short.
func (r *Reservation) TryGrow(n int64) bool {
	r.a.mu.Lock()
	defer r.a.mu.Unlock()
	if r.a.waitLarge.Len() > 0 || r.a.waitSmall.Len() > 0 {
		return false
	}
	return r.grow(n)
}

// Extend adds n bytes if they are free, even when requests wait. It never waits either: it is for bytes without which a request that
// has begun must fail. Finishing what has begun frees more than it takes.
func (r *Reservation) Extend(n int64) bool {
	r.a.mu.Lock()
	defer r.a.mu.Unlock()
	return r.grow(n)
}

// grow is called with the lock held.
func (r *Reservation) grow(n int64) bool {
	if r.released {
		return false
	}
	if n <= 0 {
		return true
	}
	if r.large == 0 && n <= r.a.smallRequest-r.small {
		if !r.a.fitsSmall(n) {
			return false
		}
		r.small += n
		r.a.small += n
		return true
	}
	if !r.a.fitsLarge(n) {
		return false
	}
	r.large += n
	r.a.large += n
	return true
}

// Shrink gives n bytes back, or as many as there are.
func (r *Reservation) Shrink(n int64) {
	r.a.mu.Lock()
	defer r.a.mu.Unlock()
	r.shrink(n)
}

// shrink is called with the lock held.
func (r *Reservation) shrink(n int64) {
	if n <= 0 {
		return
	}
	large := min(n, r.large)
	small := min(n-large, r.small)
	r.large -= large
	r.a.large -= large
	r.small -= small
	r.a.small -= small
	r.a.grant()
}

// Release gives everything back. It may be called any number of times, and on a nil Reservation.
func (r *Reservation) Release() {
	if r == nil {
		return
	}
	r.a.mu.Lock()
	defer r.a.mu.Unlock()
	r.released = true
	r.shrink(r.small + r.large)
}

// Bytes is what the reservation holds now.
func (r *Reservation) Bytes() int64 {
	r.a.mu.Lock()
	defer r.a.mu.Unlock()
	return r.small + r.large
}
