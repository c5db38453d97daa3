package bytecache

import (
	"context"
	"encoding/binary"
	"sync"
)

// Tiered is a Memory in front of other tiers: a disk, memcached, or both in this order. A value
// that is found in a tier is kept in those before it. It is safe for concurrent use.
type Tiered struct {
	memory *Memory // nil: none
	below  []Cache // nearest first
	disk   Disk    // among below; nil: none
	names  names
}

var _ Cache = (*Tiered)(nil)

// NewTiered returns a cache of memory, unless it is nil, and the tiers below it, nearest first. It
// closes them. If the first of them is a Disk, keys must be those of pages, see PageBits: pages
// that are used a second time in memory are kept on the disk.
func NewTiered(memory *Memory, below ...Cache) *Tiered {
	t := &Tiered{memory: memory, below: below}
	if disk, ok := below[0].(Disk); ok {
		t.disk = disk
		if memory != nil {
			t.names.of = map[uint64]ID{}
			memory.OnUse(t.used)
		}
	}
	return t
}

// used keeps a page of memory on the disk, because its second use makes it worth a write, and
// because the disk does not see what memory answers.
func (t *Tiered) used(local uint64, value []byte, asked bool) {
	if key, ok := t.names.key(local); ok {
		t.disk.Keep(key, value, asked)
	}
}

// Get looks in memory.
func (t *Tiered) Get(local uint64) ([]byte, bool) {
	if t.memory == nil {
		return nil, false
	}
	return t.memory.Get(local)
}

// Fetch looks in memory, then in the next tier for all that is missing, at once, and so on.
func (t *Tiered) Fetch(ctx context.Context, keys []Key, values [][]byte) (found Found) {
	if t.memory != nil {
		found = t.memory.Fetch(ctx, keys, values)
	}
	for i, tier := range t.below {
		missing := make([]int, 0, len(keys))
		for at := range keys {
			if values[at] == nil {
				missing = append(missing, at)
			}
		}
		if len(missing) == 0 {
			break
		}
		f := tier.Fetch(ctx, keys, values)
		found.DiskItems += f.DiskItems
		found.DiskBytes += f.DiskBytes
		for _, at := range missing {
			if values[at] == nil {
				continue
			}
			t.keep(keys[at], values[at])
			for _, before := range t.below[:i] {
				before.Set(keys[at], values[at])
			}
		}
	}
	return found
}

// OnDisk reports for each key whether the disk has its value, without reading it.
func (t *Tiered) OnDisk(keys []Key) []bool {
	if has, ok := t.disk.(interface{ Has(keys []Key) []bool }); ok {
		return has.Has(keys)
	}
	return make([]bool, len(keys))
}

// keep stores a value in memory.
func (t *Tiered) keep(key Key, value []byte) {
	if t.memory == nil {
		return
	}
	if t.disk != nil {
		t.names.add(key)
	}
	t.memory.Set(key, value)
}

// Remote returns true.
func (t *Tiered) Remote() bool { return true }

// Set stores a value in all tiers.
func (t *Tiered) Set(key Key, value []byte) {
	t.keep(key, value)
	for _, tier := range t.below {
		tier.Set(key, value)
	}
}

// Del removes a value from all tiers, from the last one first, because a value found there is kept
// in those before it.
func (t *Tiered) Del(key Key) {
	for i := len(t.below) - 1; i >= 0; i-- {
		t.below[i].Del(key)
	}
	if t.memory != nil {
		t.memory.Del(key)
	}
}

// Stats returns the counts of the first tier.
func (t *Tiered) Stats() Stats {
	if t.memory == nil {
		return t.below[0].Stats()
	}
	return t.memory.Stats()
}

// Close closes all tiers.
func (t *Tiered) Close() {
	for i := len(t.below) - 1; i >= 0; i-- {
		t.below[i].Close()
	}
	if t.memory != nil {
		t.memory.Close()
	}
}

// The key of a page has the page's number in the low PageBits bits of Local and in the four bytes
// from PageAt of ID, big-endian. The rest names the object.
const (
	PageBits = 26
	PageAt   = 20
)

// maxNames bounds the objects whose names are known. A page of another object is kept on the disk
// when it is read again.
const maxNames = 1 << 14

// names has the ID of objects by the upper bits of Local, because memory has no IDs.
type names struct {
	mu sync.RWMutex
	of map[uint64]ID // IDs of the objects' first pages
}

func (n *names) add(key Key) {
	object := key.Local >> PageBits
	n.mu.RLock()
	_, known := n.of[object]
	n.mu.RUnlock()
	if known {
		return
	}
	id := key.ID
	binary.BigEndian.PutUint32(id[PageAt:], 0)
	n.mu.Lock()
	defer n.mu.Unlock()
	for other := range n.of {
		if len(n.of) < maxNames {
			break
		}
		delete(n.of, other)
	}
	n.of[object] = id
}

// key returns the key of a page, and whether the name of its object is known.
func (n *names) key(local uint64) (Key, bool) {
	n.mu.RLock()
	id, ok := n.of[local>>PageBits]
	n.mu.RUnlock()
	binary.BigEndian.PutUint32(id[PageAt:], uint32(local&(1<<PageBits-1)))
	return Key{Local: local, ID: id}, ok
}
