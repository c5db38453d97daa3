package hedge

import (
	"math/bits"
	"sync/atomic"
)

const (
	// token is one extra request in the budget's unit.
	token = 10_000

	// The bucket counts as failing if more than maxFailed of the last 64 requests failed. It counts
	// as slow if more than maxLate of the last 64 reads were late, or if most of the running reads
	// are, and these are at least minLate.
	maxFailed = 6
	maxLate   = 16
	minLate   = 4
)

// Causes of a suppressed hedge.
const (
	refusedBudget  = "budget"
	refusedSlots   = "slots"
	refusedFailing = "bucket_failing"
	refusedSlow    = "bucket_slow"
)

// gate decides whether an extra request may be sent.
type gate struct {
	limiter Limiter
	earn    int64 // budget per request
	burst   int64 // the most that is saved
	budget  atomic.Int64

	running, waiting atomic.Int64 // running reads, and those of them that are late now

	failures, lates history
}

func newGate(o Options) *gate {
	return &gate{limiter: o.Limiter, earn: int64(o.Budget * token), burst: int64(o.Burst) * token}
}

// request counts a first request.
func (g *gate) request() {
	for {
		have := g.budget.Load()
		if have >= g.burst || g.budget.CompareAndSwap(have, min(have+g.earn, g.burst)) {
			return
		}
	}
}

// admit spends a token and acquires a slot. It returns the cause if it cannot, and "" otherwise.
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

// history is the last 64 outcomes, the newest in the lowest bit. A set bit is a bad outcome.
type history struct{ bits atomic.Uint64 }

func (h *history) add(bad bool) {
	var b uint64
	if bad {
		b = 1
	}
	for {
		old := h.bits.Load()
		// Nearly always no outcome is bad, and nothing changes.
		if next := old<<1 | b; next == old || h.bits.CompareAndSwap(old, next) {
			return
		}
	}
}

func (h *history) count() int { return bits.OnesCount64(h.bits.Load()) }
