package memcached

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// ring is an immutable set of servers.
type ring struct {
	servers []*server // sorted by address, without duplicates
	seeds   []uint64  // one for each server
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

// pick returns the index of the server of an ID: the one with the highest score (rendezvous
// hashing). A removed server moves only its own IDs; an added server only receives IDs.
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

// sort returns the positions grouped by server, in order within each group, and the end of each
// group.
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
