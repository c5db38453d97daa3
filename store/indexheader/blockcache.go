package indexheader

import (
	"sync"
	"sync/atomic"
)

// blockCache keeps verified blocks of open headers within an allowance: what the next query over
// the same names needs again. A block comes in the second time it is read, so that one pass over a
// large label does not sweep out what is used, and leaves by the clock algorithm.
//
// A hit takes no lock: every reader has a slot per block.
type blockCache struct {
	max int64

	mu   sync.Mutex // guards what follows, and every change of a slot's block
	used int64
	ring []*cachedBlock
	hand int
}

// cachedBlock is a block whose checksum was verified when it came in. Its bytes never change and
// are left to the garbage collector, so a look-up may go on using a block that has just been
// evicted.
type cachedBlock struct {
	data  []byte // without the checksum
	slot  *cacheSlot
	at    int // in the ring
	fresh atomic.Bool
}

type cacheSlot struct {
	block atomic.Pointer[cachedBlock]
	seen  atomic.Bool // read before
}

// cachedOverhead is about what a cached block costs beside its bytes.
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

// remove takes b out. c.mu is held.
func (c *blockCache) remove(b *cachedBlock) {
	last := len(c.ring) - 1
	c.ring[b.at] = c.ring[last]
	c.ring[b.at].at = b.at
	c.ring[last] = nil
	c.ring = c.ring[:last]
	c.used -= b.cost()
	b.slot.block.Store(nil)
}

// drop takes out every block of a reader that no look-up uses any more.
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
