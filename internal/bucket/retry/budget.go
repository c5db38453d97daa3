package retry

import (
	"sync"
	"time"
)

// perSecond is the number of tokens that come by themselves.
const perSecond = 1

// budget counts the tokens for retries.
type budget struct {
	earn, burst float64 // tokens per operation, and the most that are saved

	mu     sync.Mutex
	tokens float64
	filled time.Time // when tokens was last updated
}

func newBudget(o Options) *budget {
	return &budget{
		earn:   o.Budget,
		burst:  float64(o.Burst),
		tokens: float64(o.Burst),
		filled: time.Now(),
	}
}

// operation adds the part of a token that an operation earns.
func (b *budget) operation() { b.add(b.earn) }

// refund returns a token.
func (b *budget) refund() { b.add(1) }

func (b *budget) add(n float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = min(b.tokens+n, b.burst)
}

// trySpend spends a token if there is one.
func (b *budget) trySpend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fillLocked()
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (b *budget) left() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fillLocked()
	return b.tokens
}

func (b *budget) fillLocked() {
	now := time.Now()
	b.tokens = min(b.tokens+perSecond*now.Sub(b.filled).Seconds(), b.burst)
	b.filled = now
}
