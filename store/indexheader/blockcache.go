package indexheader

import (
	"sync"
	"sync/atomic"
)

// blockCache caches verified blocks of open headers within an allowance. A block is admitted the
// second time it is read, so that one pass over a large label does not evict useful blocks. The
// clock algorithm evicts them.
//
// A hit takes no lock, because every reader has a slot for each block.
type blockCache struct {
	max int64

	mu   sync.Mutex // guards the fields below, and every change of a slot's block
	used int64
	ring []*cachedBlock
	hand int
}

// cachedBlock is a block whose checksum was verified on admission. Its bytes never change and
// belong to the garbage collector, so a look-up may use a block after it was evicted.
type cachedBlock struct {
	data  []byte // without the checksum
	slot  *cacheSlot
	at    int // index in the ring
	fresh atomic.Bool
}

type cacheSlot struct {
	block atomic.Pointer[cachedBlock]
	seen  atomic.Bool // the block was read before
}

// cachedOverhead is the approximate cost of a cached block besides its bytes.
const cachedOverhead = 64

func (b *cachedBlock) cost() int64 { return int64(cap(b.data)) + cachedOverhead }

func (c *blockCache) add(s *cacheSlot, data []byte) {
	b := &cachedBlock{data: data, slot: s}
	if b.cost() > c.max/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.block.Load() != nil {
		return
	}
	for c.used+b.cost() > c.max {
		if c.hand >= len(c.ring) {
			c.hand = 0
		}
		if v := c.ring[c.hand]; v.fresh.Swap(false) {
			c.hand++
		} else {
			c.remove(v)
		}
	}
	b.at = len(c.ring)
	c.ring = append(c.ring, b)
	c.used += b.cost()
	s.block.Store(b)
}

// remove removes b. c.mu is held.
func (c *blockCache) remove(b *cachedBlock) {
	last := len(c.ring) - 1
	c.ring[b.at] = c.ring[last]
	c.ring[b.at].at = b.at
	c.ring[last] = nil
	c.ring = c.ring[:last]
	c.used -= b.cost()
	b.slot.block.Store(nil)
}

// drop removes all blocks of a reader that no look-up uses.
func (c *blockCache) drop(slots []cacheSlot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range slots {
		if b := slots[i].block.Load(); b != nil {
			c.remove(b)
		}
	}
}

func (c *blockCache) bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}
