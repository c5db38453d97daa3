package warm

import (
	"errors"
	"fmt"
	"sync/atomic"

	"larder/internal/pagecache"
)

// errSpent ends a replay at its byte limit.
var errSpent = errors.New("byte limit of the replay")

// budget is the number of index bytes that one replay may still read, from the caches or the
// bucket. It bounds the reads of the bucket, the evictions from the caches, and the work. Bytes in
// memory cost only work: memoryShare of them count as one.
type budget struct{ left atomic.Int64 }

// memoryShare is about how much longer it takes to get bytes into memory than to decode them there.
const memoryShare = 8

func newBudget(bytes int64) *budget {
	b := &budget{}
	b.left.Store(bytes)
	return b
}

func (b *budget) spent() bool { return b.left.Load() <= 0 }

// attempt is one attempt at a set, with the bytes that it reads.
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

// end accounts for the attempt and returns the bytes that it read from the bucket. If it yielded to
// requests, the bytes from caches are returned to the budget, because the next attempt reads them
// again. Otherwise they stay spent, so that the sets after the limit do not read as much again.
func (a *attempt) end(yielded bool) (fetched int64) {
	fetched = a.acct.FetchedBytes.Load()
	spent, hits := a.spent.Load(), a.acct.HitBytes.Load()
	if yielded {
		a.budget.left.Add(max(spent-fetched, 0))
	} else {
		a.budget.left.Add(max(min(hits, spent-fetched), 0) / memoryShare * (memoryShare - 1))
	}
	return fetched
}
