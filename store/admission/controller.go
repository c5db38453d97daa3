package admission

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/inbound"
)

// Admission decides when requests may work, and how much they may hold: Series requests have one of a number of places, and every request has
// bytes of the request allowance. Both are had together, in one step, or not at all.
//
// # Small and large
//
// A request enters as a small one, with what a small request may hold, and finds out what it needs as it plans. What needs more becomes
// large: it keeps its place as one of the large ones if there is room for it at once; else it gives up its place, its bytes and its plan, waits for a large
// one's place with as many bytes as it needs, and plans again.
//
// Each lane has its part. Large requests never hold the places and the bytes that are left to small ones. Small requests use whatever is free as long as
// no large one could use it, and only their part while one waits for it. So neither starves: a small request finds its part as soon as small ones before it
// end, and a large one that waits gets what running requests give back. Within a lane turns are shared between tenants, see fairQueue.
//
// # Nothing waits in a circle
//
// INVARIANT: a request that waits here holds nothing of what is had here. One that has its turn never waits here again before it has given up all of it: what it
// wants besides it gets at once or not at all. So requests wait only for requests that run, and those only for the bucket, whose reads have
// deadlines and an account of their own, and for their client.
//
// INVARIANT: held[small] + held[large] <= total, held[large] <= total - part, and of the places likewise, at all times.
type Controller struct {
	gate                             GateOptions
	places, smallPlaces, largePlaces int // 0: no bound
	maxLargeWaiting                  int

	total, smallBytes, smallRequest int64

	limits *Limits

	mu       sync.Mutex // guards everything below, and the fields of turns; never held while waiting or calling out
	running  [lanes]int
	reserved [lanes]int64
	queues   [lanes][kinds]fairQueue
	arrivals uint64
	waiting  int64 // bytes that waiters wait for
	tenants  map[string]tenantUse
	clients  map[inbound.Client]int // places that each client address has
	latest   [2]visit               // the client that came last, and the last other one

	gateMetrics      gateMetrics
	allowanceMetrics allowanceMetrics
}

// New makes an admission and registers its metrics. limits may be nil.
func New(gate GateOptions, allowance AllowanceOptions, limits *Limits, reg prometheus.Registerer) *Controller {
	gate.defaults()
	allowance.defaults()
	c := &Controller{
		gate:  gate,
		total: allowance.Bytes, smallBytes: allowance.SmallLane, smallRequest: allowance.SmallRequest,
		limits:  limits,
		tenants: map[string]tenantUse{},
		clients: map[inbound.Client]int{},
	}
	c.places, c.smallPlaces, c.largePlaces = gate.places()
	c.maxLargeWaiting = max(gate.MaxWaiting-max(1, gate.MaxWaiting/4), 1)
	c.gateMetrics = newGateMetrics(c, reg)
	c.allowanceMetrics = newAllowanceMetrics(c, reg)
	return c
}

// lane is what a request counts as.
type lane int

const (
	small lane = iota
	large
	lanes
)

func (l lane) String() string { return [lanes]string{"small", "large"}[l] }

// Kind says what a request needs.
type Kind int

const (
	SeriesRequest Kind = iota // a place and bytes
	LabelRequest              // bytes
	kinds
	background // bytes that nobody waits for
)

// tenantUse is what the running requests of a tenant have.
type tenantUse struct {
	places int
	bytes  int64
}

// Enter waits until a request may begin: as a small one, with a place if it is a Series request, and with the bytes of a small request. Its errors carry a
// gRPC status.
func (c *Controller) Enter(ctx context.Context, tenant string, kind Kind) (*Turn, error) {
	t := &Turn{c: c, tenant: c.limits.account(tenant), client: inbound.ClientOf(ctx), kind: kind}
	if kind == SeriesRequest {
		c.gateMetrics.total.Inc()
	}
	if err := t.acquire(ctx, small, c.smallRequest); err != nil {
		t.ObserveWait()
		return nil, err
	}
	return t, nil
}

// TryReserve is for work that no request waits for. It gets its bytes at once or not at all: if no request waits for its turn, and if half of
// the allowance stays free for those to come. ever is false for what would not get them in an idle process either.
func (c *Controller) TryReserve(n int64) (t *Turn, ever bool) {
	n = max(0, n)
	if n > c.total/2 || n > c.total-c.smallBytes {
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t = &Turn{c: c, kind: background}
	if c.anyWaiting() || n > c.total/2-c.reserved[small]-c.reserved[large] || !t.tryReserve(n) {
		return nil, true
	}
	return t, true
}

// SetLimits replaces the limits of tenants, lets those go whom the new ones let go, and refuses those that could never go by them.
func (c *Controller) SetLimits(others LimitOptions, tenants map[string]LimitOptions) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limits.set(others, tenants)
	for k := range kinds {
		q := &c.queues[large][k]
		for _, w := range q.waiters() {
			if err := c.tooLarge(w.turn, w.bytes); err != nil {
				c.reject(w, large, err)
			}
		}
	}
	c.grant()
}

// Busy reports whether it is no time for work that no request waits for: requests wait, or half of the allowance is in use.
func (c *Controller) Busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.anyWaiting() || c.reserved[small]+c.reserved[large] >= c.total/2
}

// Waiting reports whether requests wait for their turn, and whether it is bytes that one of them lacks.
func (c *Controller) Waiting() (waiting, forBytes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.anyWaiting(), c.next(small) != nil || c.next(large) != nil
}

func (c *Controller) anyWaiting() bool {
	for l := range lanes {
		for k := range kinds {
			if c.queues[l][k].len > 0 {
				return true
			}
		}
	}
	return false
}

// KeepsOthersWaiting reports whether a client has all the places that it may have while a request of another
// client waits for one.
func (c *Controller) KeepsOthersWaiting(client inbound.Client) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hasFullShare(client) {
		return false
	}
	for l := range lanes {
		for other := range c.queues[l][SeriesRequest].clients {
			if other != client {
				return true
			}
		}
	}
	return false
}

// InUse is the number of bytes that requests hold now.
func (c *Controller) InUse() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reserved[small] + c.reserved[large]
}
