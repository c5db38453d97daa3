package warm

import (
	"errors"
	"fmt"
	"sync/atomic"

	"larder/internal/pagecache"
)

// errSpent ends a replay that has gone through as many bytes as it may.
var errSpent = errors.New("as many bytes as a replay may read")

// budget is the bytes of index that one replay may still go through, wherever they come from: it
// bounds what is asked of the bucket, what is pushed out of the caches, and the work.
type budget struct{ left atomic.Int64 }

func newBudget(bytes int64) *budget {
	b := &budget{}
	b.left.Store(bytes)
	return b
}

func (b *budget) spent() bool { return b.left.Load() <= 0 }

// attempt is one try at a set: what it goes through, and what it has read of the bucket.
type attempt struct {
	budget *budget
	acct   pagecache.Account
	spent  atomic.Int64
}

func (b *budget) attempt() *attempt {
	a := &attempt{budget: b}
	a.acct.Spend = func(touched, fetched int64) error {
		n := max(touched, fetched)
		a.spent.Add(n)
		if b.left.Add(-n) < 0 {
			return fmt.Errorf("%d bytes of index: %w", n, errSpent)
		}
		return nil
	}
	return a
}

// end accounts for the attempt and returns the bytes that it has read of the bucket. One that made
// way gives back what it did not read there, for it will go through that again. No other does: a
// bound that was met stays met, or each of the sets that follow would go through as much once more.
func (a *attempt) end(madeWay bool) (fetched int64) {
	fetched = a.acct.FetchedBytes.Load()
	if madeWay {
		a.budget.left.Add(max(a.spent.Load()-fetched, 0))
	}
	return fetched
}
