package hedge

import (
	"math/bits"
	"sync/atomic"
)

const (
	// token is one extra request, in the budget's units.
	token = 10_000

	// The bucket fails when more than maxFailed of the last 64 requests did, and
	// is slow when more than maxLate of the last 64 reads were late, or most of
	// those that run now.
	maxFailed = 6
	maxLate   = 16
	minLate   = 4
)

// Why a read was not hedged.
const (
	refusedBudget  = "budget"
	refusedSlots   = "slots"
	refusedFailing = "bucket_failing"
	refusedSlow    = "bucket_slow"
)

// gate decides whether an extra request may be made.
type gate struct {
	limiter Limiter
	earn    int64 // per request
	most    int64
	budget  atomic.Int64

	running, waiting atomic.Int64 // reads; those of them that are late at this moment

	failures, lates history
}

func newGate(o Options) *gate {
	return &gate{limiter: o.Limiter, earn: int64(o.Budget * token), most: int64(o.Burst) * token}
}

// request counts a first request.
func (g *gate) request() {
	for {
		have := g.budget.Load()
		if have >= g.most || g.budget.CompareAndSwap(have, min(have+g.earn, g.most)) {
			return
		}
	}
}

// admit takes a token and a slot, or says why not.
func (g *gate) admit() (refused string) {
	if g.failures.count() > maxFailed {
		return refusedFailing
	}
	if late := g.waiting.Load(); g.lates.count() > maxLate ||
		late >= minLate && 2*late > g.running.Load() {
		return refusedSlow
	}
	for {
		have := g.budget.Load()
		if have < token {
			return refusedBudget
		}
		if g.budget.CompareAndSwap(have, have-token) {
			break
		}
	}
	if g.limiter != nil && !g.limiter.TryAcquire() {
		g.budget.Add(token)
		return refusedSlots
	}
	return ""
}

func (g *gate) release() {
	if g.limiter != nil {
		g.limiter.Release()
	}
}

// history is the last 64 outcomes, newest lowest; a set bit is a bad one.
type history struct{ bits atomic.Uint64 }

func (h *history) add(bad bool) {
	var b uint64
	if bad {
		b = 1
	}
	for {
		old := h.bits.Load()
		// Nearly always: nothing bad, and nothing bad before.
		if next := old<<1 | b; next == old || h.bits.CompareAndSwap(old, next) {
			return
		}
	}
}

func (h *history) count() int { return bits.OnesCount64(h.bits.Load()) }
