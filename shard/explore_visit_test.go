package shard

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// visited are the worlds that were reached, as 64-bit hashes, each with the hash of the world
// before it. It needs 24 to 48 bytes a world. Two worlds with one hash count as one, and what
// follows the second is then not visited. With n worlds the probability of that is about n*n/2^65:
// one in a million for 5 million worlds.
type visited struct {
	hashes, before []uint64 // a hash of 0 is a free place
	n              int
}

// add adds a hash, and returns false if it was there.
func (v *visited) add(hash, before uint64) bool {
	if 4*v.n >= 3*len(v.hashes) {
		old := *v
		size := max(1<<10, 2*len(old.hashes))
		*v = visited{hashes: make([]uint64, size), before: make([]uint64, size)}
		for i, h := range old.hashes {
			if h != 0 {
				v.add(h, old.before[i])
			}
		}
	}
	i := v.find(hash)
	if v.hashes[i] == hash {
		return false
	}
	v.hashes[i], v.before[i] = hash, before
	v.n++
	return true
}

// find returns the place of a hash, or the free one where it belongs.
func (v *visited) find(hash uint64) uint64 {
	mask := uint64(len(v.hashes) - 1)
	i := hash & mask
	for v.hashes[i] != 0 && v.hashes[i] != hash {
		i = (i + 1) & mask
	}
	return i
}

// appendWorld encodes a world.
func appendWorld(b []byte, w *world) []byte {
	for _, n := range w.nodes {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	b = append(b, w.crowd, w.published, w.endpoints, w.groups, w.info, w.views, w.faults, w.cut,
		w.dup)
	return appendBool(b, w.mixed, w.reduced)
}

// hash returns the hash of a world, never 0. With symmetric, a world and its mirror image have the
// same.
func (x *model) hash(w *world) uint64 {
	x.one = appendWorld(x.one[:0], w)
	if x.symmetric {
		image := x.mirror(*w)
		x.other = appendWorld(x.other[:0], &image)
		if bytes.Compare(x.other, x.one) < 0 {
			return max(xxhash.Sum64(x.other), 1)
		}
	}
	return max(xxhash.Sum64(x.one), 1)
}

// mirror returns a world with zones a and b exchanged.
//
// Exploring one of a world and its mirror image is sound, because no decision depends on the names
// of zones: they are compared only for equality, and sorted so that a search finds them. So a
// history of the image is the image of a history, and the law says nothing about names. The one
// place where the model itself has an order is a member that polls all: TestZonesAreSymmetric
// checks that it does not matter. A model with faults.mixed is not symmetric.
func (x *model) mirror(w world) world {
	nodes := w.nodes
	for slot := range slots {
		w.nodes[mirrorSlot(slot)] = x.mirrorNode(nodes[slot], slot)
	}
	for _, principal := range []*uint8{&w.cut, &w.dup} {
		if *principal != 0 {
			*principal = uint8(mirrorSlot(int(*principal)-1)) + 1
		}
	}
	return w
}

// mirrorSlot returns the slot of the same ordinal in the other zone. The twin keeps its slot.
func mirrorSlot(slot int) int {
	if slot == twin {
		return slot
	}
	return slot ^ 1
}

// mirrorNode returns the number of the image of a node. A node belongs to one slot.
func (x *model) mirrorNode(i uint32, slot int) uint32 {
	if int(i) < len(x.mirrored) && x.mirrored[i] != 0 {
		return x.mirrored[i] - 1
	}
	n := x.nodes[i]
	if n.m != nil {
		n.m = mirrorMember(n.m)
	}
	to := x.intern(n, mirrorSlot(slot))
	x.mirrored = append(x.mirrored, make([]uint32, len(x.nodes)-len(x.mirrored))...)
	x.mirrored[i] = to + 1
	return to
}

func mirrorMember(m *Member) *Member {
	zone := func(id *ID) { id.Zone = map[string]string{"a": "b", "b": "a"}[id.Zone] }
	instance := func(n *uint64) {
		slot := int(*n-1) % slots
		*n += uint64(mirrorSlot(slot)) - uint64(slot)
	}
	c := clone(m)
	zone(&c.id)
	instance(&c.instance)
	for i := range c.peers {
		zone(&c.peers[i].id)
		instance(&c.peers[i].instance)
	}
	slices.SortFunc(c.peers, func(a, b peer) int { return compareIDs(a.id, b.id) })
	return c
}

// explore visits all worlds, breadth first, until one is broken or there are limit of them.
func (x *model) explore() {
	first := x.start()
	x.rest(&first)
	if what := x.check(&first); what != "" {
		x.broken = "at the start: " + what
		return
	}
	x.seen.add(x.hash(&first), 0)
	layer := []world{first}
	for ; len(layer) > 0 && x.broken == "" && x.seen.n < x.limit; x.depth++ {
		var after []world
		for _, w := range layer {
			if x.broken != "" || x.seen.n >= x.limit {
				return
			}
			before := x.hash(&w)
			x.next(w, func(_ string, w world) {
				if x.broken != "" {
					return
				}
				x.rest(&w)
				hash := x.hash(&w)
				if !x.seen.add(hash, before) {
					return
				}
				after = append(after, w)
				if wrong := x.check(&w); wrong != "" {
					x.broken = wrong + ":\n" + x.history(hash)
				}
				x.completed = x.completed || x.ended(&w)
			})
		}
		layer = after
	}
	x.exhausted = len(layer) == 0
}

// ended reports whether all hand-overs are done, and the Querier knows it.
func (x *model) ended(w *world) bool {
	if x.last == 2 {
		return x.done(w, 2) && w.groups == 5
	}
	return w.published == 3 && w.groups == 3 && x.done(w, 3)
}

// history returns how the world with a hash was reached.
func (x *model) history(hash uint64) string {
	path := []uint64{hash}
	for {
		hash = x.seen.before[x.seen.find(hash)]
		if hash == 0 {
			break
		}
		path = append(path, hash)
	}
	slices.Reverse(path)
	return x.tell(path[1:])
}

// tell returns the steps from the start through the worlds with these hashes.
func (x *model) tell(path []uint64) string {
	x.telling = true
	defer func() { x.telling = false }()
	w := x.start()
	x.rest(&w)
	var steps []string
	for _, hash := range path {
		found := false
		x.next(w, func(what string, to world) {
			if x.rest(&to); !found && x.hash(&to) == hash {
				found, w = true, to
				steps = append(steps, what)
			}
		})
	}
	return strings.Join(steps, "\n") + x.describe(&w)
}
