package shard

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// visited are the worlds that were reached, as 62-bit hashes, each with the hash of the world
// before it and the number of faults that were left, in the two lowest bits of that. It needs 21 to
// 43 bytes a world. Two worlds with one hash count as one, and what follows the second is then not
// visited. With n worlds the probability of that is about n*n/2^63: three in a million for 5
// million worlds.
//
// The hash leaves out the number of faults. A world is visited again only with more of them left:
// it can then do all that it could with fewer.
type visited struct {
	hashes, before []uint64 // a hash of 0 is a free place
	n              int
}

// add adds a hash, and returns false if it was there with as many faults left.
func (v *visited) add(hash, before uint64, faults uint8) bool {
	if 4*v.n >= 3*len(v.hashes) {
		old := *v
		size := max(1<<10, 2*len(old.hashes))
		*v = visited{hashes: make([]uint64, size), before: make([]uint64, size)}
		for i, h := range old.hashes {
			if h != 0 {
				v.add(h, old.before[i]&^3, uint8(old.before[i]&3))
			}
		}
	}
	i := v.find(hash)
	if v.hashes[i] == hash {
		if uint8(v.before[i]&3) >= faults {
			return false
		}
	} else {
		v.n++
	}
	v.hashes[i], v.before[i] = hash, before|uint64(faults)
	return true
}

// has returns the most faults that were left when a hash was reached, and false if it was not.
func (v *visited) has(hash uint64) (faults uint8, ok bool) {
	i := v.find(hash)
	return uint8(v.before[i] & 3), v.hashes[i] == hash
}

// find returns the place of a hash, or the free one where it belongs.
func (v *visited) find(hash uint64) uint64 {
	mask := uint64(len(v.hashes) - 1)
	i := hash >> 2 & mask
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
	b = append(b, w.crowd, w.groups, w.info, w.views, w.cut, w.dup)
	return appendBool(b, w.mixed, w.reduced)
}

// hash returns the hash of a world without the faults left, never 0. With symmetric, a world and
// its mirror image have the same.
func (x *model) hash(w *world) uint64 {
	x.one = appendWorld(x.one[:0], w)
	if x.symmetric {
		image := x.mirror(*w)
		x.other = appendWorld(x.other[:0], &image)
		if bytes.Compare(x.other, x.one) < 0 {
			return max(xxhash.Sum64(x.other)&^3, 4)
		}
	}
	return max(xxhash.Sum64(x.one)&^3, 4)
}

// table maps 64-bit keys other than 0 to numbers other than 0.
type table struct {
	keys   []uint64
	values []uint32
	n      int
}

func (t *table) find(key uint64) uint64 {
	mask := uint64(len(t.keys) - 1)
	i := mix(key) & mask
	for t.keys[i] != 0 && t.keys[i] != key {
		i = (i + 1) & mask
	}
	return i
}

func (t *table) get(key uint64) uint32 {
	if t.n == 0 {
		return 0
	}
	return t.values[t.find(key)]
}

func (t *table) put(key uint64, value uint32) {
	if 2*t.n >= len(t.keys) {
		old := *t
		size := max(1<<10, 2*len(old.keys))
		*t = table{keys: make([]uint64, size), values: make([]uint32, size)}
		for i, k := range old.keys {
			if k != 0 {
				t.put(k, old.values[i])
			}
		}
	}
	i := t.find(key)
	t.keys[i], t.values[i] = key, value
	t.n++
}

func (s step) key() uint64 {
	return 1<<63 | uint64(s.node)<<36 | uint64(s.kind)<<32 | uint64(s.arg)
}

// explore visits all worlds, breadth first, until one is broken or there are limit of them.
func (x *model) explore() {
	first := x.start()
	x.reduce(&first)
	if what := x.check(&first); what != "" {
		x.broken = "at the start: " + what
		return
	}
	x.seen.add(x.hash(&first), 0, first.faults)
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
				x.reduce(&w)
				hash := x.hash(&w)
				if !x.seen.add(hash, before, w.faults) {
					return
				}
				after = append(after, w)
				if x.each != nil {
					x.each(w)
				}
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
	return w.groups == 3 && x.done(w, 3)
}

// history returns how the world with a hash was reached.
func (x *model) history(hash uint64) string {
	path := []uint64{hash}
	for {
		hash = x.seen.before[x.seen.find(hash)] &^ 3
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
	x.reduce(&w)
	var steps []string
	for _, hash := range path {
		found := false
		x.next(w, func(what string, to world) {
			if x.reduce(&to); !found && x.hash(&to) == hash {
				found, w = true, to
				steps = append(steps, what)
			}
		})
	}
	return strings.Join(steps, "\n") + x.describe(&w)
}
