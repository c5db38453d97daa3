package memcached

import (
	"sync"
	"sync/atomic"
)

// write is a value to be stored, or an ID to be deleted.
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

// pendingWrite is the last write of an ID that was asked for and has not been carried out. It is in
// the order, or the worker that has it will put it there again if it is another one by then.
type pendingWrite struct{ write }

// queue holds writes until a worker takes them. At most one per ID runs, and the last one asked for
// runs last.
type queue struct {
	maxItems int
	maxBytes int64

	length atomic.Int64 // of pending, to be read without mu

	mu      sync.Mutex
	ready   sync.Cond // something is queued, or closed
	pending map[ID]*pendingWrite
	order   fifo
	// Of the values in pending, those that run included; deletions are counted apart: they have no
	// value and are not dropped for values.
	values, removals int
	bytes            int64
	closed           bool // nothing more is taken in
	dropping         bool // nothing more is given out; closed too
}

func newQueue(maxItems int, maxBytes int64) *queue {
	q := &queue{maxItems: maxItems, maxBytes: maxBytes, pending: map[ID]*pendingWrite{}}
	q.ready.L = &q.mu
	return q
}

// put takes in a write, or reports false where there is no room for it: then nothing has changed.
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

// take waits for a write. Whoever takes it carries it out and calls done. It reports false when
// there will be none.
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

// done ends a write that was taken: unless another of its ID was asked for meanwhile, it is no
// longer pending. It tells whether another one is lost, because nothing more is given out.
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

// same tells whether two values are the same memory. Values do not change.
func same(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// look calls found for the positions in ids whose write is pending, with its value, nil for a
// deletion, and returns the others, in the same array.
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

// waiting returns how much is pending.
func (q *queue) waiting() (items int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.values + q.removals, q.bytes
}

// close takes nothing more in. Workers go on with what is queued.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.ready.Broadcast()
}

// drop gives nothing more out, and returns how many values were queued.
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

// fifo hands out what was put in first. Each takes constant time on average.
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
