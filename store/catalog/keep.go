package catalog

import (
	"cmp"
	"container/heap"
	"fmt"
	"sync"
)

// ordinaryMeta is what the catalog keeps of an ordinary block, and more. Blocks that take no more
// are as many as the bucket has.
const ordinaryMeta = 8 << 10

// keeping bounds what is kept of the documents that take more than ordinaryMeta, all together: a
// few thousand blocks with labels of 64 KiB would fill the memory for as long as they are in the
// bucket. If they take more, the largest are dropped, so that those of others are not.
type keeping struct {
	limit int64

	mu    sync.Mutex // guards following, and is held while drop runs
	sum   int64
	large keptHeap
}

// kept is what is kept of one document.
type kept struct {
	bytes int64
	name  string
	drop  func(why error) // must not call into keeping
}

// add takes in a document. It drops documents, this one too, until those that are left fit.
func (k *keeping) add(d kept) {
	if d.bytes <= ordinaryMeta {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	heap.Push(&k.large, d)
	k.sum += d.bytes
	for k.sum > k.limit {
		largest := heap.Pop(&k.large).(kept)
		k.sum -= largest.bytes
		largest.drop(
			fmt.Errorf("%w: %d bytes of it would be kept, and all documents that take more "+
				"than %d may take %d together (raise the memory limit)",
				errRefused, largest.bytes, ordinaryMeta, k.limit),
		)
	}
}

// keptHeap has the largest first, of two that take the same the one with the later name: in
// whatever order they come, the same ones go.
type keptHeap []kept

func (h keptHeap) Len() int { return len(h) }
func (h keptHeap) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].bytes, h[j].bytes), cmp.Compare(h[i].name, h[j].name)) > 0
}
func (h keptHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *keptHeap) Push(d any)   { *h = append(*h, d.(kept)) }
func (h *keptHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
