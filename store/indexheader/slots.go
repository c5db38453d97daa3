package indexheader

import "container/heap"

// slots bounds the builds that run at once and says which is next: those that somebody waits for in
// the order in which they came, then background builds, the newest block first. Manager.mu guards
// it.
type slots struct {
	size       int // units
	background int // units that background builds may take

	used, usedBackground int
	running              int
	waiting              []*slotWaiter
	queue                prefetchQueue
}

type slotWaiter struct {
	weight  int
	granted chan struct{}
}

// take takes a place at once, or returns who is told when it is there.
func (s *slots) take(weight int) *slotWaiter {
	if len(s.waiting) == 0 && s.used+weight <= s.size {
		s.used += weight
		s.running++
		return nil
	}
	w := &slotWaiter{weight: weight, granted: make(chan struct{})}
	s.waiting = append(s.waiting, w)
	return w
}

// takeBackground takes a place for a background build, unless that would be in anybody's way.
func (s *slots) takeBackground(weight int) bool {
	if len(s.waiting) > 0 || s.used+weight > s.size || s.usedBackground+weight > s.background {
		return false
	}
	s.used += weight
	s.usedBackground += weight
	s.running++
	return true
}

func (s *slots) give(weight int, background bool) {
	s.used -= weight
	s.running--
	if background {
		s.usedBackground -= weight
	}
	s.grant()
}

func (s *slots) grant() {
	for len(s.waiting) > 0 && s.used+s.waiting[0].weight <= s.size {
		w := s.waiting[0]
		s.waiting[0] = nil
		s.waiting = s.waiting[1:]
		s.used += w.weight
		s.running++
		close(w.granted)
	}
}

// leave withdraws a waiter, or gives back what it was granted meanwhile.
func (s *slots) leave(w *slotWaiter) {
	for i, o := range s.waiting {
		if o == w {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			s.grant()
			return
		}
	}
	s.give(w.weight, false)
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
