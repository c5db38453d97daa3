package memcached

import (
	"sync"
	"sync/atomic"
)

// write is a value to store, or an ID to delete.
type write struct {
	id     ID
	value  []byte
	remove bool
}

func (w *write) operation() string {
	if w.remove {
		return opDelete
	}
	return opSet
}

// pendingWrite is the last requested write of an ID that is not carried out. It is in the order, or
// a worker runs an earlier write of the ID and will put it there.
type pendingWrite struct{ write }

// queue holds writes until a worker takes them. At most one write of an ID runs at a time, and the
// last one requested runs last.
type queue struct {
	maxItems int
	maxBytes int64

	length atomic.Int64 // of pending, readable without mu

	mu      sync.Mutex
	ready   sync.Cond // a write is queued, or the queue is closed
	pending map[ID]*pendingWrite
	order   fifo
	// Counts of pending, running writes included. Deletions count apart, because they carry no
	// value and must not be dropped in favour of values.
	values, removals int
	bytes            int64
	closed           bool // accepts no more writes
	dropping         bool // hands out no more writes; closed too
}

func newQueue(maxItems int, maxBytes int64) *queue {
	q := &queue{maxItems: maxItems, maxBytes: maxBytes, pending: map[ID]*pendingWrite{}}
	q.ready.L = &q.mu
	return q
}

// put queues a write. It returns false, without any effect, if the queue is full or closed.
func (q *queue) put(w write) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	p := q.pending[w.id]
	values, bytes := q.values, q.bytes
	if p != nil && !p.remove {
		values, bytes = values-1, bytes-int64(len(p.value))
	}
	switch {
	case !w.remove && (values+1 > q.maxItems || bytes+int64(len(w.value)) > q.maxBytes):
		return false
	case w.remove && (p == nil || !p.remove) && q.removals >= maxDeletes:
		return false
	}
	if p == nil {
		p = &pendingWrite{}
		q.pending[w.id] = p
		q.length.Store(int64(len(q.pending)))
		q.enqueue(p)
	} else {
		q.uncount(&p.write)
	}
	p.write = w
	q.count(&p.write)
	return true
}

func (q *queue) enqueue(p *pendingWrite) {
	q.order.push(p)
	q.ready.Signal()
}

func (q *queue) count(w *write) {
	if w.remove {
		q.removals++
		return
	}
	q.values++
	q.bytes += int64(len(w.value))
}

func (q *queue) uncount(w *write) {
	if w.remove {
		q.removals--
		return
	}
	q.values--
	q.bytes -= int64(len(w.value))
}

// take waits for a write. The caller must carry it out and then call done. It returns false if no
// more writes follow.
func (q *queue) take() (p *pendingWrite, w write, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.order.len() == 0 || q.dropping {
		if q.closed {
			return nil, write{}, false
		}
		q.ready.Wait()
	}
	p = q.order.pop()
	return p, p.write, true
}

// done ends a write that was taken. Unless another write of its ID was requested meanwhile, the ID
// is no longer pending. It reports whether such a write is lost because the queue is dropping.
func (q *queue) done(p *pendingWrite, w write) (lost bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	another := p.remove != w.remove || !same(p.value, w.value)
	if another && !q.dropping {
		q.enqueue(p)
		return false
	}
	q.uncount(&p.write)
	delete(q.pending, w.id)
	q.length.Store(int64(len(q.pending)))
	return another
}

// same reports whether two values share memory. Values do not change.
func same(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// look calls found for each position in ids whose write is pending, with its value, or nil for a
// deletion. It returns the other positions, in the same array.
func (q *queue) look(ids []ID, at []int32, found func(i int32, value []byte)) []int32 {
	if q.length.Load() == 0 {
		return at
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	rest := at[:0]
	for _, i := range at {
		if p := q.pending[ids[i]]; p != nil {
			found(i, p.value)
		} else {
			rest = append(rest, i)
		}
	}
	return rest
}

// waiting returns the number and the bytes of the pending writes.
func (q *queue) waiting() (items int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.values + q.removals, q.bytes
}

// close stops accepting writes. Workers continue with the queued ones.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.ready.Broadcast()
}

// drop stops handing out writes, and returns how many values were queued.
func (q *queue) drop() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropping = true
	q.ready.Broadcast()
	n := 0
	for q.order.len() > 0 {
		p := q.order.pop()
		q.uncount(&p.write)
		delete(q.pending, p.id)
		n++
	}
	q.length.Store(int64(len(q.pending)))
	return n
}

// fifo is a first-in, first-out queue. Each operation takes constant time on average.
type fifo struct {
	in, out []*pendingWrite // out is reversed
}

func (f *fifo) len() int { return len(f.in) + len(f.out) }

func (f *fifo) push(p *pendingWrite) { f.in = append(f.in, p) }

func (f *fifo) pop() *pendingWrite {
	if len(f.out) == 0 {
		for i := len(f.in) - 1; i >= 0; i-- {
			f.out = append(f.out, f.in[i])
		}
		clear(f.in)
		f.in = f.in[:0]
	}
	last := len(f.out) - 1
	p := f.out[last]
	f.out[last] = nil
	f.out = f.out[:last]
	return p
}
