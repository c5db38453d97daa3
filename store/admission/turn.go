package admission

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/internal/inbound"
)

// Turn is what one request holds: its bytes and, for a Series request, its place. It is safe for
// concurrent use, except that no other method may run during Wait. The request closes it.
type Turn struct {
	c      *Controller
	tenant string
	client inbound.Client
	kind   Kind

	// Guarded by c.mu.
	lane    lane         // of its place
	placed  bool         // whether it has a place. INVARIANT: only a Series request has
	bytes   [lanes]int64 // reserved, by lane: a small request may also have bytes of the large one
	planned int64        // what ReserveForPlan was asked for
	closed  bool

	// Used by the goroutine of the handler only.
	waited   time.Duration
	observed bool
}

// MustWait is returned to a request that needs more bytes than are free. The request drops its
// plans and streams, calls Turn.Wait with Need, and plans again. It keeps its message, the frames
// that it has sent, and the one that it has begun to fill.
type MustWait struct {
	// Need is the number of bytes to wait for, in total.
	Need int64
	// BeyondEstimate says that the request needed more than it told SettleTotal.
	BeyondEstimate bool

	more      int64  // how many bytes were not free
	allowance string // describes the request allowance
}

func (m *MustWait) Error() string {
	return fmt.Sprintf("the request needs %s more of %s, and other requests have reserved them "+
		"or wait for them: retry later", mibUp(m.more), m.allowance)
}

// GRPCStatus returns the status for a client whose request has stopped waiting. The client may
// retry later.
func (m *MustWait) GRPCStatus() *status.Status {
	return status.New(codes.ResourceExhausted, m.Error())
}

// acquire waits for n bytes in a lane, and for a place if the request needs one. The turn must hold
// nothing.
func (t *Turn) acquire(ctx context.Context, l lane, n int64) error {
	c := t.c
	if err := ctx.Err(); err != nil {
		return c.abandoned(t, l, n, 0, err)
	}
	c.mu.Lock()
	if t.kind == SeriesRequest {
		c.visited(t.client)
	}
	// The limits may have changed since the caller checked n.
	// INVARIANT: every queued request could run in an idle process: see SetLimits.
	if err := c.tooLarge(t, n); err != nil {
		c.mu.Unlock()
		return err
	}
	if c.queues[l][SeriesRequest].len+c.queues[l][LabelRequest].len == 0 && c.fitsNow(t, l, n) {
		c.reserve(t, l, n)
		c.grant()
		c.mu.Unlock()
		c.allowanceMetrics.waited[l].Observe(0)
		return nil
	}
	start := time.Now()
	w := c.enqueue(t, l, n)
	c.grant()
	if w.flow != nil {
		c.rejectExcess(w, l)
		c.grant() // the rejected request may have blocked others
	}
	c.mu.Unlock()

	select {
	case <-w.ready:
	case <-ctx.Done():
		c.mu.Lock()
		switch {
		case w.flow != nil:
			c.dequeue(w, l)
			w.err = ctx.Err()
		case w.err == nil:
			// The request was granted and cancelled at once: it no longer needs its turn.
			t.releaseAll()
			w.err = ctx.Err()
		}
		c.grant() // this request may have blocked others
		c.mu.Unlock()
	}
	waited := time.Since(start)
	t.waited += waited
	if w.err == nil {
		c.allowanceMetrics.waited[l].Observe(waited.Seconds())
		return nil
	}
	if errors.Is(w.err, ctx.Err()) {
		return c.abandoned(t, l, n, waited, w.err)
	}
	return w.err
}

// ReserveForPlan reserves n more bytes for planning. A small request may plan with the bytes of a
// small one; beyond that it becomes large. The error is a *MustWait if the request must wait for
// that, or a status if it is too large.
func (t *Turn) ReserveForPlan(n int64) error {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	have := t.bytes[small] + t.bytes[large]
	t.planned += n
	if t.planned <= have {
		return nil
	}
	err := t.growTo(t.planned)
	if g, ok := errors.AsType[*MustWait](err); ok {
		// The rest of the plan may need much more. Asking for twice as much each time keeps the
		// number of waits small.
		g.Need = max(g.Need, min(2*have, t.c.maxBytes(t)))
	}
	return err
}

// SettleTotal sets the reservation to n bytes in total, those for planning included, before the
// request sends its first frame. It releases what the turn has beyond n. Its errors are those of
// ReserveForPlan.
func (t *Turn) SettleTotal(n int64) error {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	t.planned = n
	if have := t.bytes[small] + t.bytes[large]; n <= have {
		t.release(have - n)
		return nil
	}
	return t.growTo(n)
}

// Restart makes ReserveForPlan count from 0 again. The turn keeps what it holds.
func (t *Turn) Restart() {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	t.planned = 0
}

// Wait releases everything that the turn holds, then waits for n bytes and for a place if the
// request needs one.
func (t *Turn) Wait(ctx context.Context, n int64) error {
	t.c.mu.Lock()
	t.releaseAll()
	t.c.grant()
	t.c.mu.Unlock()
	l := small
	if n > t.c.smallRequest {
		l = large
	}
	return t.acquire(ctx, l, n)
}

// TryReserve reserves n more bytes if no other request waits for bytes, and if a quarter of the
// allowance, and of the part for large requests, stays free. It is for look-ahead, which stops
// first when memory is short.
func (t *Turn) TryReserve(n int64) bool {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	c := t.c
	if c.next(large) != nil || c.next(small) != nil {
		return false
	}
	// A quarter of what large requests may have, so that one more of them can begin.
	for l, most := range [lanes]int64{small: c.total, large: c.total - c.smallBytes} {
		reserved := c.reserved[large]
		if lane(l) == small {
			reserved += c.reserved[small]
		}
		if n > most-most/4-reserved {
			return false
		}
	}
	return t.tryReserve(n)
}

// Reserve reserves n more bytes if they are free, even if other requests wait. It never waits
// itself. It is for bytes that a running request needs to finish, because finishing it releases
// more. The error is a *MustWait for twice as many bytes, or a plain status if the turn has as many
// as one request may, because waiting cannot help then.
func (t *Turn) Reserve(n int64) error {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	if t.tryReserve(n) {
		return nil
	}
	have, limit := t.bytes[small]+t.bytes[large], t.c.maxBytes(t)
	switch {
	case t.closed:
		return status.Error(codes.ResourceExhausted, "the request has ended")
	case have >= limit:
		return status.Errorf(codes.ResourceExhausted, "the request needs %s beyond %s",
			mibUp(n), t.c.bound(t))
	}
	need := min(max(2*have, have+n), limit)
	return &MustWait{Need: need, BeyondEstimate: true, more: n, allowance: t.c.allowance}
}

// Release releases n bytes, or all that the turn has if they are fewer.
func (t *Turn) Release(n int64) {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	t.release(n)
}

// Close releases everything. A closed turn can reserve nothing. It may be called more than once,
// and on a nil Turn.
func (t *Turn) Close() {
	if t == nil {
		return
	}
	t.c.mu.Lock()
	if !t.closed {
		t.releaseAll()
		t.closed = true
		t.c.grant()
	}
	t.c.mu.Unlock()
	t.ObserveWait()
}

// Bytes returns how many bytes the turn has reserved.
func (t *Turn) Bytes() int64 {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	return t.bytes[small] + t.bytes[large]
}

// ObserveWait records how long a Series request has waited for its turn. Only the first call
// counts. Handlers call it before they send, because an alert must not learn of a wait only once
// the client has read the answer. A wait after that is rare, and is not recorded.
func (t *Turn) ObserveWait() {
	if t.observed || t.kind != SeriesRequest {
		return
	}
	t.observed = true
	for _, h := range t.c.gateMetrics.durations {
		h.Observe(t.waited.Seconds())
	}
}

// growTo raises the reservation to n bytes, more than the turn has. The caller holds c.mu.
func (t *Turn) growTo(n int64) error {
	c := t.c
	more := n - t.bytes[small] - t.bytes[large]
	if err := c.tooLarge(t, n); err != nil {
		return err
	}
	if t.lane == small && n > c.smallRequest {
		if t.becomeLarge(n) {
			return nil
		}
	} else if t.tryReserve(more) {
		return nil
	}
	return &MustWait{Need: n, more: more, allowance: c.allowance}
}

// becomeLarge turns a small request into a large one with n bytes. It does not wait: it fails if
// the request would overtake a large one, or if place or bytes are not free. The caller holds c.mu.
func (t *Turn) becomeLarge(n int64) bool {
	c := t.c
	more := n - t.bytes[small] - t.bytes[large]
	switch {
	case t.placed && c.places > 0 && c.running[large] >= c.largePlaces,
		c.first(large, t.kind) != nil, c.next(large) != nil,
		n > c.total-c.smallBytes-c.reserved[large]+t.bytes[large],
		more > c.total-c.reserved[small]-c.reserved[large],
		!c.withinTenant(t, more), t.closed:
		return false
	}
	c.reserved[small] -= t.bytes[small]
	c.reserved[large] += n - t.bytes[large]
	t.bytes = [lanes]int64{large: n}
	t.lane = large
	if t.placed {
		c.running[small]--
		c.running[large]++
	}
	c.charge(t, 0, more)
	c.allowanceMetrics.waited[large].Observe(0)
	c.grant() // its part of the small lane is free
	return true
}

// tryReserve reserves n more bytes if they are free. The caller holds c.mu.
func (t *Turn) tryReserve(n int64) bool {
	c := t.c
	if t.closed {
		return false
	}
	if n <= 0 {
		return true
	}
	l := large
	if t.lane == small && t.bytes[large] == 0 && n <= c.smallRequest-t.bytes[small] {
		l = small
	}
	if !c.fits(l, n) || !c.withinTenant(t, n) {
		return false
	}
	t.bytes[l] += n
	c.reserved[l] += n
	c.charge(t, 0, n)
	c.grant()
	return true
}

// release releases up to n bytes and admits waiting requests. The caller holds c.mu.
func (t *Turn) release(n int64) {
	if n <= 0 {
		return
	}
	fromLarge := min(n, t.bytes[large])
	fromSmall := min(n-fromLarge, t.bytes[small])
	t.bytes[large] -= fromLarge
	t.bytes[small] -= fromSmall
	t.c.reserved[large] -= fromLarge
	t.c.reserved[small] -= fromSmall
	t.c.charge(t, 0, -fromLarge-fromSmall)
	t.c.grant()
}

// releaseAll releases the place and all bytes. The caller holds c.mu, and calls grant afterwards.
func (t *Turn) releaseAll() {
	c := t.c
	places := 0
	if t.placed {
		t.placed, places = false, 1
		c.running[t.lane]--
	}
	c.reserved[small] -= t.bytes[small]
	c.reserved[large] -= t.bytes[large]
	c.charge(t, -places, -t.bytes[small]-t.bytes[large])
	t.bytes = [lanes]int64{}
}
