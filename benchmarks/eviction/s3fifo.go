package main

import "sync"

// s3fifo is another yardstick: three queues, first in, first out. New values go through a small one
// of a tenth; those that were asked for in it, or that are back while their keys are remembered, go
// into the main one, where those that were asked for go round again.
type s3fifo struct {
	mu          sync.Mutex // guards all
	table       map[uint64]*s3entry
	small, main queue
	dropped     map[uint64]struct{}
	recent      []uint64 // a ring of the keys in dropped
	at          int
}

type s3entry struct {
	key   uint64
	value []byte
	uses  int8 // since it went into a queue or round it
	next  *s3entry
}

// queue holds entries up to a number of bytes.
type queue struct {
	first, last *s3entry
	left        int64
}

func (q *queue) push(e *s3entry) {
	if e.next = nil; q.last == nil {
		q.first = e
	} else {
		q.last.next = e
	}
	q.last = e
	q.left -= int64(len(e.value)) + entryOverhead
}

func (q *queue) pop() *s3entry {
	e := q.first
	if q.first = e.next; q.first == nil {
		q.last = nil
	}
	q.left += int64(len(e.value)) + entryOverhead
	return e
}

func newS3FIFO(maxBytes int64) cache {
	remembered := maxBytes / (pageSize + entryOverhead)
	left := maxBytes - seenBytes*remembered
	return &s3fifo{
		table: map[uint64]*s3entry{},
		small: queue{left: left / 10}, main: queue{left: left - left/10},
		dropped: make(map[uint64]struct{}, remembered), recent: make([]uint64, remembered),
	}
}

func (c *s3fifo) Get(key uint64) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.table[key]
	if e == nil {
		return nil, false
	}
	e.uses = min(e.uses+1, 3)
	return e.value, true
}

func (c *s3fifo) Set(key uint64, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.table[key] != nil {
		return
	}
	e := &s3entry{key: key, value: value}
	c.table[key] = e
	if _, back := c.dropped[key]; back {
		c.main.push(e)
	} else {
		c.small.push(e)
	}
	for c.small.left < 0 {
		if e := c.small.pop(); e.uses > 0 {
			e.uses = 0
			c.main.push(e)
		} else {
			c.forget(e)
			delete(c.dropped, c.recent[c.at])
			c.dropped[e.key], c.recent[c.at] = struct{}{}, e.key
			c.at = (c.at + 1) % len(c.recent)
		}
	}
	for c.main.left < 0 {
		if e := c.main.pop(); e.uses > 0 {
			e.uses--
			c.main.push(e)
		} else {
			c.forget(e)
		}
	}
}

// forget takes an entry out of the table, unless another is there for its key by now.
func (c *s3fifo) forget(e *s3entry) {
	if c.table[e.key] == e {
		delete(c.table, e.key)
	}
}

// Del leaves an empty entry to the queues.
func (c *s3fifo) Del(key uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.table[key]; e != nil {
		e.uses = 0
		delete(c.table, key)
	}
}

func (c *s3fifo) settle() {}
func (c *s3fifo) close()  {}
