package indexcache

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/bytecache"
)

const (
	// setsName is the name of the series sets' cache in metrics.
	setsName = "series_sets"
	// defaultSetShare is the part of the pages' allowance that series sets have beside it, unless
	// theirs is given: one in that many.
	defaultSetShare = 4
	// buildingShare is the part of the allowance of series sets that those under construction may
	// hold, and so the most that one may take: one in that many.
	buildingShare = 3
	// expectedSetBytes is the usual size of a series set: some hundred series.
	expectedSetBytes = 64 << 10
)

// SetKey names a series set of a block.
type SetKey struct {
	// Identity is what the set is of, exactly: it is kept with the set and compared.
	Identity string
	hash     uint64
}

// NewSetKey returns the key of the set of a block that what describes: matchers in canonical form,
// final labels. Different sets must have different descriptions. The block number is the process's
// own.
func NewSetKey(blockNumber uint32, blockID ulid.ULID, what []byte) SetKey {
	identity := make([]byte, 0, 4+len(blockID)+len(what))
	identity = binary.BigEndian.AppendUint32(identity, blockNumber)
	identity = append(identity, blockID[:]...)
	identity = append(identity, what...)
	return SetKey{Identity: string(identity), hash: xxhash.Sum64(identity)}
}

// SeriesSets keeps series sets: values of package block, which makes them, each with the bytes that
// it takes. It bounds the bytes of the sets under construction too, and remembers what was asked
// for lately. It is safe for concurrent use. A nil SeriesSets keeps nothing.
//
// A set that is read when the cache lets go of it stays in memory until its readers are done. Until
// then it counts as one under construction: so all that there is of series sets stays within the
// allowance, and where much is still read less is built.
type SeriesSets struct {
	values  *bytecache.Values[*keptSet]
	held    atomic.Int64 // bytes of sets that are under construction, or read and no longer kept
	maxSet  int64
	putting sync.Mutex // held while a set is taken in

	mu sync.Mutex // guards the readers of keptSets; never held while calling out

	asked, large filter

	coalesced atomic.Int64
	tooLarge  atomic.Int64
	noRoom    atomic.Int64
	collector *setsCollector
	reg       prometheus.Registerer // nil: none
}

// keptSet is a set and its identity.
type keptSet struct {
	identity string
	set      any
	bytes    int64

	// Guarded by SeriesSets.mu. INVARIANT: bytes are part of SeriesSets.held while the set is gone
	// and has readers.
	readers int
	gone    bool // no longer in the cache
}

// newSeriesSets returns a cache of series sets that holds maxBytes in all.
func newSeriesSets(maxBytes int64, reg prometheus.Registerer) *SeriesSets {
	s := &SeriesSets{maxSet: maxBytes / buildingShare, reg: reg}
	s.values = bytecache.NewValues[*keptSet](bytecache.Options{
		MaxBytes:           maxBytes - s.maxSet,
		MaxValueBytes:      s.maxSet,
		PendingApart:       true,
		ExpectedValueBytes: expectedSetBytes,
		Name:               setsName,
		Registerer:         reg,
	})
	s.values.OnExit(s.exit)
	if reg != nil {
		s.collector = newSetsCollector(s)
		reg.MustRegister(s.collector)
	}
	return s
}

// Get returns a set, and a function that must be called once it is no longer read.
func (s *SeriesSets) Get(k SetKey) (set any, release func(), ok bool) {
	v, ok := s.values.Get(k.hash)
	if !ok || v.identity != k.Identity {
		return nil, nil, false
	}
	return v.set, s.read(v), true
}

// GetAgain is Get for a request whose Get found nothing: it counts as that one, and as coalesced if
// the set is there by now.
func (s *SeriesSets) GetAgain(k SetKey) (set any, release func(), ok bool) {
	v, ok := s.values.Peek(k.hash)
	if !ok || v.identity != k.Identity {
		return nil, nil, false
	}
	s.Joined()
	return v.set, s.read(v), true
}

// Put offers a set of the given size, which is read until release is called. wanted says that it
// was asked for before the request that had it built: otherwise it has to be asked for again soon
// to be kept. Whoever holds bytes for it gives them back after Put: until the set is taken in they
// account for it.
func (s *SeriesSets) Put(k SetKey, set any, bytes int64, wanted bool) (release func()) {
	s.putting.Lock()
	defer s.putting.Unlock()
	v := &keptSet{identity: k.Identity, set: set, bytes: bytes}
	release = s.read(v)
	if wanted {
		s.values.SetAsked(k.hash, v, bytes)
	} else {
		s.values.Set(k.hash, v, bytes)
	}
	s.values.Wait()
	if now, ok := s.values.Peek(k.hash); !ok || now != v {
		s.exit(v)
	}
	return release
}

// read notes a reader of a set.
func (s *SeriesSets) read(v *keptSet) (release func()) {
	s.count(v, 1, false)
	return sync.OnceFunc(func() { s.count(v, -1, false) })
}

// exit notes that the cache does not hold a set.
func (s *SeriesSets) exit(v *keptSet) { s.count(v, 0, true) }

// count changes the number of a set's readers, and whether it is gone.
func (s *SeriesSets) count(v *keptSet, readers int, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := func() int64 {
		if v.gone && v.readers > 0 {
			return v.bytes
		}
		return 0
	}
	before := held()
	v.readers += readers
	v.gone = v.gone || gone
	s.held.Add(held() - before)
}

// Again reports whether a set was asked for lately, as far as a small filter can tell, and notes
// that it is now.
func (s *SeriesSets) Again(k SetKey) bool { return s.asked.add(k.hash) }

// MaxSetBytes returns the largest size of a set.
func (s *SeriesSets) MaxSetBytes() int64 { return s.maxSet }

// NoteTooLarge notes that a set turned out to be too large.
func (s *SeriesSets) NoteTooLarge(k SetKey) {
	s.tooLarge.Add(1)
	s.large.add(k.hash)
}

// TooLarge reports whether a set turned out to be too large lately, as far as a small filter can
// tell.
func (s *SeriesSets) TooLarge(k SetKey) bool { return s.large.has(k.hash) }

// TryReserve reserves n more bytes for sets under construction, if they are free.
func (s *SeriesSets) TryReserve(n int64) bool {
	if s.held.Add(n) <= s.maxSet {
		return true
	}
	s.held.Add(-n)
	s.noRoom.Add(1)
	return false
}

// Release releases n reserved bytes.
func (s *SeriesSets) Release(n int64) { s.held.Add(-n) }

// HeldBytes returns the bytes of sets that are under construction, or read and no longer kept.
func (s *SeriesSets) HeldBytes() int64 { return s.held.Load() }

// Joined counts a request that shares the construction of another's set.
func (s *SeriesSets) Joined() { s.coalesced.Add(1) }

// Coalesced returns the number of requests that did.
func (s *SeriesSets) Coalesced() int64 { return s.coalesced.Load() }

// Stats returns the figures of the memory that keeps the sets.
func (s *SeriesSets) Stats() bytecache.Stats { return s.values.Stats() }

func (s *SeriesSets) close() {
	if s == nil {
		return
	}
	if s.collector != nil {
		s.reg.Unregister(s.collector)
	}
	s.values.Close()
}

const (
	// filterBits is the size of one generation of a filter in bits, filterItems the number of
	// hashes after which it is the older one.
	filterBits  = 1 << 17
	filterItems = 1 << 13
)

// filter remembers hashes for a while: at least the last 8,192, at most twice as many, in 32 KiB.
// It takes a hash for a known one by mistake in up to 0.5 % of cases: few enough for what a scan
// asks for once not to count as asked for twice.
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
