package retry

import (
	"sync"
	"time"
)

// perSecond is how many tokens come by themselves.
const perSecond = 1

// budget is the repetitions that may be made.
type budget struct {
	earn, most float64

	mu     sync.Mutex
	tokens float64
	filled time.Time // when tokens were brought up to date
}

func newBudget(o Options) *budget {
	return &budget{
		earn:   o.Budget,
		most:   float64(o.Burst),
		tokens: float64(o.Burst),
		filled: time.Now(),
	}
}

// operation earns a part of a token.
func (b *budget) operation() { b.add(b.earn) }

// refund gives a token back.
func (b *budget) refund() { b.add(1) }

func (b *budget) add(n float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = min(b.tokens+n, b.most)
}

// take takes a token, if there is one.
func (b *budget) take() bool {
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
	b.tokens = min(b.tokens+perSecond*now.Sub(b.filled).Seconds(), b.most)
	b.filled = now
}
