package main

import "sync"

// lru is the reference: it evicts the least recently used value. With a number of remembered keys
// it admits a value only if its key is remembered from an earlier Set.
type lru struct {
	mu    sync.Mutex // guards all fields
	left  int64
	table map[uint64]*node
	// list is a ring whose next element is the most recently used one.
	list node

	seen   map[uint64]struct{}
	recent []uint64 // a ring of the keys in seen
	at     int
}

type node struct {
	prev, next *node
	key        uint64
	value      []byte
}

// seenBytes is the approximate cost of a remembered key.
const seenBytes = 32

func newLRU(maxBytes int64, remembered int) *lru {
	c := &lru{left: maxBytes - seenBytes*int64(remembered), table: map[uint64]*node{}}
	c.list.prev, c.list.next = &c.list, &c.list
	if remembered > 0 {
		c.seen, c.recent = make(map[uint64]struct{}, remembered), make([]uint64, remembered)
	}
	return c
}

func (n *node) unlink() { n.prev.next, n.next.prev = n.next, n.prev }

func (c *lru) toFront(n *node) {
	n.prev, n.next = &c.list, c.list.next
	n.prev.next, n.next.prev = n, n
}

func (c *lru) Get(key uint64) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.table[key]
	if n == nil {
		return nil, false
	}
	n.unlink()
	c.toFront(n)
	return n.value, true
}

func (c *lru) Set(key uint64, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.table[key] != nil || !c.admit(key) {
		return
	}
	n := &node{key: key, value: value}
	c.table[key] = n
	c.toFront(n)
	for c.left -= int64(len(value)) + entryOverhead; c.left < 0; {
		c.drop(c.list.prev)
	}
}

// admit reports whether the key is remembered, and remembers it.
func (c *lru) admit(key uint64) bool {
	if c.seen == nil {
		return true
	}
	if _, again := c.seen[key]; again {
		return true
	}
	delete(c.seen, c.recent[c.at])
	c.seen[key] = struct{}{}
	c.recent[c.at] = key
	c.at = (c.at + 1) % len(c.recent)
	return false
}

func (c *lru) Del(key uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.table[key]; n != nil {
		c.drop(n)
	}
}

func (c *lru) drop(n *node) {
	n.unlink()
	delete(c.table, n.key)
	c.left += int64(len(n.value)) + entryOverhead
}

func (c *lru) settle() {}
func (c *lru) close()  {}
