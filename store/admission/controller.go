package admission

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/inbound"
)

// Controller admits requests: it hands out the places for Series requests and the bytes of the
// request allowance. It is safe for concurrent use.
//
// # Small and large requests
//
// A request enters as small, with a fixed number of bytes, and learns what it needs while it plans.
// A request that needs more becomes large. It keeps its place if a large one may run at once.
// Otherwise it drops its plan, releases everything and waits for a place with enough bytes.
//
// Each lane has a guaranteed part of the places and bytes. Large requests never use the part of
// small ones. Small requests use everything that is free, but only their own part while a large
// request waits that could use the rest. Neither lane starves: small requests get their part as
// soon as earlier small ones end, and a waiting large request gets what running requests release.
//
// INVARIANT: reserved[small] + reserved[large] <= total and reserved[large] <= total - smallBytes.
// The same holds for places.
type Controller struct {
	gate                             GateOptions
	places, smallPlaces, largePlaces int // 0: unlimited
	maxLargeWaiting                  int

	// total is the request allowance in bytes, smallBytes the part for small requests, and
	// smallRequest the size of a small request.
	total, smallBytes, smallRequest int64
	allowance                       string // describes total in errors

	limits *Limits

	// mu guards everything below, and the fields of turns. LOCKING: it is never held while waiting
	// or calling out.
	mu       sync.Mutex
	running  [lanes]int   // places in use
	reserved [lanes]int64 // bytes
	queues   [lanes][kinds]fairQueue
	arrivals uint64 // requests that have ever waited
	waiting  int64  // bytes that queued requests need
	tenants  map[string]tenantUse
	clients  map[inbound.Client]int // places in use by client address
	latest   [2]visit               // of the last client, and of the last other one

	gateMetrics      gateMetrics
	allowanceMetrics allowanceMetrics
}

// New returns a Controller and registers its metrics. limits may be nil.
func New(
	gate GateOptions, allowance AllowanceOptions, limits *Limits, reg prometheus.Registerer,
) *Controller {
	gate.defaults()
	allowance.defaults()
	c := &Controller{
		gate:         gate,
		total:        allowance.Bytes,
		smallBytes:   allowance.SmallLane,
		smallRequest: allowance.SmallRequest,
		allowance:    allowance.String(),
		limits:       limits,
		tenants:      map[string]tenantUse{},
		clients:      map[inbound.Client]int{},
	}
	c.places, c.smallPlaces, c.largePlaces = gate.places()
	c.maxLargeWaiting = max(gate.MaxWaiting-max(1, gate.MaxWaiting/4), 1)
	c.gateMetrics = newGateMetrics(c, reg)
	c.allowanceMetrics = newAllowanceMetrics(c, reg)
	return c
}

// lane is one of the two classes that share places and bytes.
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
	// SeriesRequest needs a place and bytes.
	SeriesRequest Kind = iota
	// LabelRequest needs bytes.
	LabelRequest
	kinds
	// background work needs bytes, and is in no queue.
	background
)

// tenantUse is what the running requests of one tenant hold.
type tenantUse struct {
	places int
	bytes  int64
}

// Enter waits until a request may begin, as a small one. A Series request gets a place; every
// request gets the bytes of a small one. Errors carry a gRPC status. The caller closes the turn.
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

// TryReserve reserves n bytes for background work. It never waits. It succeeds if no request waits
// and half of the allowance stays free for later requests. It returns nil otherwise; ever is false
// if n bytes could not be reserved in an idle process either.
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

// SetLimits replaces the limits of tenants. It admits the waiting requests that the new limits
// permit, and rejects those that could never run under them.
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

// Busy reports whether background work should pause: requests wait, or hold half of the allowance.
func (c *Controller) Busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.anyWaiting() || c.reserved[small]+c.reserved[large] >= c.total/2
}

// Waiting reports whether requests wait for their turn, and whether one of them lacks bytes rather
// than a place.
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

// KeepsOthersWaiting reports whether a client address holds its full share of places while a
// request of another address waits for one.
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

// InUse returns the number of bytes that requests have reserved.
func (c *Controller) InUse() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reserved[small] + c.reserved[large]
}
