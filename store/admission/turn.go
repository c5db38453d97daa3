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

// Turn is what one request has of an Admission: its bytes and, for a Series request, its place. It is safe for concurrent use, but for Wait, during which
// nobody else may use it. After Release it holds nothing and cannot grow.
type Turn struct {
	c      *Controller
	tenant string
	client inbound.Client
	kind   Kind

	// Guarded by c.mu.
	lane     lane         // that it has its place in
	placed   bool         // INVARIANT: only a Series request is
	bytes    [lanes]int64 // what takes a small request beyond a small one's size is counted as large
	planned  int64        // of these, what Plan has asked for
	released bool

	// Of the handler's goroutine alone.
	waited   time.Duration
	observed bool
}

// MustWait is the error of a request that needs more than it can have at once. It can drop all that it has in its hands, Wait for what it needs, and begin
// anew, or go on after what it has sent.
type MustWait struct {
	Need           int64 // in all
	more           int64 // than it has
	BeyondEstimate bool  // beyond what it had settled for
}

func (g *MustWait) Error() string {
	return fmt.Sprintf("%d more bytes do not fit into the request allowance (--store.request-bytes)", g.more)
}

// GRPCStatus is what the client gets unless the request begins again: there may be room at another time.
func (g *MustWait) GRPCStatus() *status.Status {
	return status.New(codes.ResourceExhausted, g.Error())
}

// acquire waits for n bytes in a lane, and a place if the request needs one. The turn must hold nothing.
func (t *Turn) acquire(ctx context.Context, l lane, n int64) error {
	c := t.c
	if err := ctx.Err(); err != nil {
		return c.abandoned(t, l, n, 0, err)
	}
	c.mu.Lock()
	if t.kind == SeriesRequest {
		c.visited(t.client)
	}
	// Limits may have changed since n was found to be within them. INVARIANT: what waits could go in an idle process: see SetLimits.
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
		c.grant() // It may have been the turn of who was sent away.
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
			// Both happened. Nobody wants it any more.
			t.releaseAll()
			w.err = ctx.Err()
		}
		c.grant() // What stood behind this request may go.
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

// Plan asks for n more bytes to plan with. What the plan takes in the end is part of what Settle is told. A small request has smallRequest bytes to
// plan with; beyond that it becomes large. A *MustWait says that it must wait for that, and drop what it has planned.
func (t *Turn) Plan(n int64) error {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	have := t.bytes[small] + t.bytes[large]
	t.planned += n
	if t.planned <= have {
		return nil
	}
	err := t.growTo(t.planned)
	if g, ok := errors.AsType[*MustWait](err); ok {
		// What is known now may be little of what is to come. Twice as much each time gets there soon.
		g.Need = max(g.Need, min(2*have, t.c.maxBytes(t)))
	}
	return err
}

// Settle says that the request is to hold n bytes in all, its plan included, and that it begins to answer. A *MustWait says that it must wait for that.
func (t *Turn) Settle(n int64) error {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	t.planned = n
	if have := t.bytes[small] + t.bytes[large]; n <= have {
		t.release(have - n)
		return nil
	}
	return t.growTo(n)
}

// Restart says that the request plans anew with what it has.
func (t *Turn) Restart() {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	t.planned = 0
}

// Wait gives up all that the turn holds, waits until it may have n bytes, and a place if it needs one, and begins as if it had just entered.
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

// TryGrow adds n bytes if they are free and no request waits for them. It never waits: it is for look-ahead, which is the
// first thing to go when memory is short.
func (t *Turn) TryReserve(n int64) bool {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	if t.c.next(large) != nil || t.c.next(small) != nil {
		return false
	}
	return t.tryReserve(n)
}

// Grow adds n bytes if they are free, even when requests wait. It never waits either: it is for bytes without which a request that
// has begun cannot go on. Finishing what has begun frees more than it takes. A *MustWait says that it must wait, for twice as much, unless it has held all
// that there is for one.
func (t *Turn) Reserve(n int64) error {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	if t.tryReserve(n) {
		return nil
	}
	have, most := t.bytes[small]+t.bytes[large], t.c.maxBytes(t)
	g := &MustWait{Need: min(max(2*have, have+n), most), more: n, BeyondEstimate: true}
	if have >= most || t.released {
		return g.GRPCStatus().Err()
	}
	return g
}

// Shrink gives n bytes back, or as many as there are.
func (t *Turn) Release(n int64) {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	t.release(n)
}

// Release gives everything back. It may be called any number of times, and on a nil Turn.
func (t *Turn) Close() {
	if t == nil {
		return
	}
	t.c.mu.Lock()
	if !t.released {
		t.releaseAll()
		t.released = true
		t.c.grant()
	}
	t.c.mu.Unlock()
	t.ObserveWait()
}

// Bytes is what the turn holds now.
func (t *Turn) Bytes() int64 {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	return t.bytes[small] + t.bytes[large]
}

// ObserveWait tells the metrics how long a Series request has waited at the gate, once: when it is about to send, or ends before. That it may have to
// give way later is rare, and an alert must not hear of a wait only when the answer has been read.
func (t *Turn) ObserveWait() {
	if t.observed || t.kind != SeriesRequest {
		return
	}
	t.observed = true
	for _, h := range t.c.gateMetrics.durations {
		h.Observe(t.waited.Seconds())
	}
}

// hold makes the turn hold n bytes, more than it has. It is called with the lock held.
func (t *Turn) growTo(n int64) error {
	c := t.c
	more := n - t.bytes[small] - t.bytes[large]
	if err := c.tooLarge(t, n); err != nil {
		return err
	}
	if t.lane == small && n > c.smallRequest {
		if !t.becomeLarge(n) {
			return &MustWait{Need: n, more: more}
		}
		return nil
	}
	if !t.tryReserve(more) {
		return &MustWait{Need: n, more: more}
	}
	return nil
}

// becomeLarge makes a small request of n bytes a large one where it stands, if nobody else's turn comes before.
func (t *Turn) becomeLarge(n int64) bool {
	c := t.c
	more := n - t.bytes[small] - t.bytes[large]
	switch {
	case t.placed && c.places > 0 && c.running[large] >= c.largePlaces,
		c.first(large, t.kind) != nil, c.next(large) != nil,
		n > c.total-c.smallBytes-c.reserved[large]+t.bytes[large],
		more > c.total-c.reserved[small]-c.reserved[large],
		!c.withinTenant(t, more), t.released:
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
	c.grant() // It has left its part to small ones.
	return true
}

// grow is called with the lock held.
func (t *Turn) tryReserve(n int64) bool {
	c := t.c
	if t.released {
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

// shrink is called with the lock held.
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

// releaseAll is called with the lock held. Whoever calls it grants.
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
