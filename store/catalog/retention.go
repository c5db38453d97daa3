package catalog

import (
	"cmp"
	"container/heap"
	"fmt"
	"sync"
)

// ordinaryMeta is more than what the catalog retains of an ordinary block. Smaller blocks do not
// count towards the limit of retention, because a bucket may have any number of them.
const ordinaryMeta = 8 << 10

// retention bounds the memory of all retained documents that need more than ordinaryMeta. Without
// it, a few thousand blocks with labels of 64 KiB would fill the memory for as long as they are in
// the bucket. Beyond the limit it drops the largest documents and keeps the others.
type retention struct {
	limit int64

	mu    sync.Mutex // guards following, and is held while drop runs
	sum   int64
	large retainedHeap
}

// retained is what is retained of one document.
type retained struct {
	bytes int64
	name  string
	drop  func(why error) // must not call into retention
}

// add adds a document. It drops documents, possibly this one, until the others fit.
func (r *retention) add(d retained) {
	if d.bytes <= ordinaryMeta {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	heap.Push(&r.large, d)
	r.sum += d.bytes
	for r.sum > r.limit {
		largest := heap.Pop(&r.large).(retained)
		r.sum -= largest.bytes
		largest.drop(fmt.Errorf("%w: it needs %d bytes, and the limit for all documents that need "+
			"more than %d is %d (raise the memory limit)",
			errRefused, largest.bytes, ordinaryMeta, r.limit))
	}
}

// retainedHeap has the largest document first. Among documents of one size, the one with the later
// name comes first, so that the same documents are dropped in whatever order they are added.
type retainedHeap []retained

func (h retainedHeap) Len() int { return len(h) }
func (h retainedHeap) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].bytes, h[j].bytes), cmp.Compare(h[i].name, h[j].name)) > 0
}
func (h retainedHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *retainedHeap) Push(d any)   { *h = append(*h, d.(retained)) }
func (h *retainedHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
