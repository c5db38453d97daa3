package indexcache

import "sync"

// smallSetBytes is the size up to which a set is built at the first request for it, because it
// cannot evict much.
const smallSetBytes = 1 << 20

// Candidate is a series set that is not kept, as a request for it knows it.
type Candidate struct {
	// Bytes estimates the size of the set. AtMost says that it may turn out much smaller.
	Bytes  int64
	AtMost bool
	// Empty says that no series matches: the set saves only the look-ups that found that out.
	Empty bool
	// Whole says that the request asks for all that the set has, whatever its time range.
	Whole bool
	// Known says that the set was requested before, other than from this cache. Repeated says that
	// the same request was planned before.
	Known, Repeated bool
}

// Pays notes a request for a set, and reports whether to build it. All chunks of every series are
// decoded for a set, therefore a set pays at its first request if that asks for all of it anyway,
// or if the set is small. Other sets pay at their second request. A set that turned out too large
// does not pay.
//
// wanted says that the set is known to be requested more than once. Put needs to know, because a
// set that is requested once, as by a scan, must not evict those of dashboards.
func (s *SeriesSets[S]) Pays(k SetKey, c Candidate) (pays, wanted bool) {
	if !c.Empty && (s.oversized.has(k.hash) || !c.AtMost && c.Bytes > s.maxSet) {
		return false, false
	}
	again := s.requested.add(k.hash)
	if c.Empty {
		return again, again && !c.Repeated
	}
	again = again || c.Known
	return again || c.Whole || c.Bytes <= smallSetBytes, again && !c.Repeated
}

// TooLarge reports whether a set of the given size is too large to be kept. If it is, Pays
// remembers that for a while.
func (s *SeriesSets[S]) TooLarge(k SetKey, bytes int64) bool {
	if bytes <= s.maxSet {
		return false
	}
	s.counts.tooLarge.Add(1)
	s.oversized.add(k.hash)
	return true
}

const (
	// filterBits is the size of one generation of a filter in bits. After filterItems hashes it
	// becomes the older one.
	filterBits  = 1 << 17
	filterItems = 1 << 13
)

// filter is a Bloom filter that remembers the last 8,192 to 16,384 hashes in 32 KiB. It takes up to
// 0.5 % of new hashes for known ones. That is accepted, because few sets of a scan then count as
// requested twice.
type filter struct {
	mu         sync.Mutex // guards what follows
	young, old []uint64   // bits
	items      int
}

// filterPlaces returns the four bits that stand for a hash.
func filterPlaces(hash uint64) (places [4]uint64) {
	step := hash>>32 | 1
	for i := range places {
		places[i] = (hash + uint64(i)*step) % filterBits
	}
	return places
}

func (f *filter) has(hash uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.holds(f.young, hash) || f.holds(f.old, hash)
}

// add notes a hash and reports whether it was known.
func (f *filter) add(hash uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.holds(f.young, hash) {
		return true
	}
	known := f.holds(f.old, hash)
	if f.young == nil || f.items == filterItems {
		f.young, f.old, f.items = make([]uint64, filterBits/64), f.young, 0
	}
	f.items++
	for _, p := range filterPlaces(hash) {
		f.young[p/64] |= 1 << (p % 64)
	}
	return known
}

func (f *filter) holds(generation []uint64, hash uint64) bool {
	if generation == nil {
		return false
	}
	for _, p := range filterPlaces(hash) {
		if generation[p/64]&(1<<(p%64)) == 0 {
			return false
		}
	}
	return true
}
