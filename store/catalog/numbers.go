package catalog

import "github.com/oklog/ulid/v2"

// MaxNumber is the largest block number that fits the keys of the page caches.
const MaxNumber = 1<<24 - 1

// retireAfter is the number of complete views without a block after which its number retires. Until
// then, a block that flaps (it is listed late, or a mark was set and removed) finds its cached
// pages again.
const retireAfter = 3

// numbers assigns numbers to blocks. INVARIANT: a number is assigned once, to one content of one
// block.
//
// After all 16,777,215 numbers are used, every further block gets 1<<24, which no cache key can
// hold: its pages are not cached, and its answers stay right. That takes a year of 30 new blocks a
// minute. A restart begins at 1 again.
type numbers struct {
	next     uint32
	assigned map[ulid.ULID]*numbered
}

type numbered struct {
	block  *Block
	absent int // complete views without the block
}

func newNumbers() numbers {
	return numbers{next: 1, assigned: map[ulid.ULID]*numbered{}}
}

// block returns a block with its number. It returns the same pointer until the content changes or
// the number retires.
func (n *numbers) block(b Block) *Block {
	if a, ok := n.assigned[b.ID]; ok && a.block.Content == b.Content {
		return a.block
	}
	b.Number = n.next
	if n.next <= MaxNumber {
		n.next++
	}
	n.assigned[b.ID] = &numbered{block: &b}
	return &b
}

// exhausted reports whether all numbers are used.
func (n *numbers) exhausted() bool { return n.next > MaxNumber }

// completeView counts a complete view, and retires the numbers of blocks that were missing from
// retireAfter views in a row.
func (n *numbers) completeView(v *View) {
	for id, a := range n.assigned {
		if v.ByID(id) == a.block {
			a.absent = 0
			continue
		}
		if a.absent++; a.absent >= retireAfter {
			delete(n.assigned, id)
		}
	}
}
