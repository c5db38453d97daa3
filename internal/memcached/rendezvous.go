package memcached

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// ring is the set of servers that are known, which does not change.
type ring struct {
	servers []*server // by address, each once
	seeds   []uint64  // of each
}

func newRing(servers []*server) *ring {
	slices.SortFunc(
		servers, func(a, b *server) int { return strings.Compare(a.addr.addr, b.addr.addr) })
	r := &ring{servers: servers}
	for _, s := range servers {
		r.seeds = append(r.seeds, xxhash.Sum64String(s.addr.addr))
	}
	return r
}

// pick returns the index of the server that an ID belongs to: the one with the highest score
// (rendezvous hashing). A server that goes takes only its own IDs with it, and one that comes only
// takes IDs over.
func (r *ring) pick(id *ID) int {
	if len(r.servers) == 1 {
		return 0
	}
	var both [len(ID{}) + 8]byte
	copy(both[:], id[:])
	best, score := 0, uint64(0)
	for i, seed := range r.seeds {
		binary.LittleEndian.PutUint64(both[len(id):], seed)
		if s := xxhash.Sum64(both[:]); s >= score {
			best, score = i, s
		}
	}
	return best
}

// sort returns the positions server by server, in their order for each, and where those of each
// server end.
func (r *ring) sort(ids []ID, at []int32) (sorted []int32, ends []int) {
	if len(r.servers) == 1 {
		return at, []int{len(at)}
	}
	ends = make([]int, len(r.servers))
	owner := make([]int, len(at))
	for i, pos := range at {
		owner[i] = r.pick(&ids[pos])
		ends[owner[i]]++
	}
	begin := 0
	for s, n := range ends {
		ends[s] = begin
		begin += n
	}
	sorted = make([]int32, len(at))
	for i, pos := range at {
		sorted[ends[owner[i]]] = pos
		ends[owner[i]]++
	}
	return sorted, ends
}
