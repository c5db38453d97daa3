package main

import "sync"

// s3fifo is another reference with three first-in, first-out queues. New values enter a small one
// of a tenth. Values that were requested in it, or that are set again while their keys are
// remembered, move to the main one, where requested ones are queued again.
type s3fifo struct {
	mu          sync.Mutex // guards all fields
	table       map[uint64]*s3entry
	small, main queue
	dropped     map[uint64]struct{}
	recent      []uint64 // a ring of the keys in dropped
	at          int
}

type s3entry struct {
	key   uint64
	value []byte
	uses  int8 // since it entered a queue or was queued again
	next  *s3entry
}

// queue contains entries up to a number of bytes.
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

// forget removes an entry from the table, unless another one has replaced it.
func (c *s3fifo) forget(e *s3entry) {
	if c.table[e.key] == e {
		delete(c.table, e.key)
	}
}

// Del leaves an empty entry in the queues.
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
