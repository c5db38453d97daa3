package catalog

import "github.com/oklog/ulid/v2"

// MaxNumber is the largest number a block can have and still be told apart in the keys of the page
// caches.
const MaxNumber = 1<<24 - 1

// retireAfter is how many complete views a block must be missing from before its number retires.
// Until then a block that flaps (its folder listed late, a mark set and taken back) finds its
// cached pages again.
const retireAfter = 3

// numbers gives blocks their numbers. INVARIANT: a number is given once: to one block, with one
// content.
//
// When all 16,777,215 are spent, every further block gets 1<<24, which no cache key can hold: its
// pages are not cached, its answers stay right. A process gets there after a year of 30 new blocks
// a minute; a restart starts anew.
type numbers struct {
	next  uint32
	given map[ulid.ULID]*numbered
}

type numbered struct {
	block  *Block
	absent int // complete views without the block
}

func newNumbers() numbers {
	return numbers{next: 1, given: map[ulid.ULID]*numbered{}}
}

// block returns a block with its number: the same pointer as long as neither its content changes
// nor the number retires.
func (n *numbers) block(b Block) *Block {
	if g, ok := n.given[b.ID]; ok && g.block.Content == b.Content {
		return g.block
	}
	b.Number = n.next
	if n.next <= MaxNumber {
		n.next++
	}
	n.given[b.ID] = &numbered{block: &b}
	return &b
}

// exhausted reports whether new blocks cannot be told apart any more.
func (n *numbers) exhausted() bool { return n.next > MaxNumber }

// completeView counts a complete view, and retires numbers that were not seen for long enough.
func (n *numbers) completeView(v *View) {
	for id, g := range n.given {
		if v.ByID(id) == g.block {
			g.absent = 0
			continue
		}
		if g.absent++; g.absent >= retireAfter {
			delete(n.given, id)
		}
	}
}
