package indexheader

import "container/heap"

// buildQueue bounds the builds that run at once and chooses the next one: first the builds that
// callers wait for, in the order of their arrival, then background builds, the newest block first.
// A build uses units by the size of its index, see Source.weight. Manager.mu guards it.
type buildQueue struct {
	size       int // units of all builds
	background int // units of background builds

	used, usedBackground int
	running              int
	waiting              []*buildWaiter
	queue                prefetchQueue
}

type buildWaiter struct {
	weight  int
	granted chan struct{}
}

// acquire reserves units for a build. If too few are free, it returns a waiter, whose channel
// granted is closed once they are reserved.
func (q *buildQueue) acquire(weight int) *buildWaiter {
	if len(q.waiting) == 0 && q.used+weight <= q.size {
		q.used += weight
		q.running++
		return nil
	}
	w := &buildWaiter{weight: weight, granted: make(chan struct{})}
	q.waiting = append(q.waiting, w)
	return w
}

// tryAcquireBackground reserves units for a background build if they are free and no caller waits
// for a build.
func (q *buildQueue) tryAcquireBackground(weight int) bool {
	if len(q.waiting) > 0 || q.used+weight > q.size || q.usedBackground+weight > q.background {
		return false
	}
	q.used += weight
	q.usedBackground += weight
	q.running++
	return true
}

func (q *buildQueue) release(weight int, background bool) {
	q.used -= weight
	q.running--
	if background {
		q.usedBackground -= weight
	}
	q.grant()
}

func (q *buildQueue) grant() {
	for len(q.waiting) > 0 && q.used+q.waiting[0].weight <= q.size {
		w := q.waiting[0]
		q.waiting[0] = nil
		q.waiting = q.waiting[1:]
		q.used += w.weight
		q.running++
		close(w.granted)
	}
}

// withdraw removes a waiter, or releases the units that it was granted in the meantime.
func (q *buildQueue) withdraw(w *buildWaiter) {
	for i, o := range q.waiting {
		if o == w {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			q.grant()
			return
		}
	}
	q.release(w.weight, false)
}

// prefetchQueue is a heap of entries, the newest block first.
type prefetchQueue []*entry

func (q prefetchQueue) Len() int           { return len(q) }
func (q prefetchQueue) Less(i, j int) bool { return q[i].src.MaxTime > q[j].src.MaxTime }
func (q prefetchQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].queuePos, q[j].queuePos = i, j
}

func (q *prefetchQueue) Push(x any) {
	e := x.(*entry)
	e.queuePos = len(*q)
	*q = append(*q, e)
}

func (q *prefetchQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	e.queuePos = -1
	return e
}

func (q *prefetchQueue) add(e *entry) {
	if e.queuePos < 0 {
		heap.Push(q, e)
	}
}

func (q *prefetchQueue) remove(e *entry) {
	if e.queuePos >= 0 {
		heap.Remove(q, e.queuePos)
	}
}
