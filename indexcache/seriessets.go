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
	// buildingShare is the part of the allowance that sets under construction may use, as 1/n. It
	// is also the size limit of a set.
	buildingShare = 3
	// expectedSetBytes is the usual size of a series set: a few hundred series.
	expectedSetBytes = 64 << 10
)

// SetKey names a series set of a block.
type SetKey struct {
	// Identity says exactly what the set is. It is kept with the set and compared.
	Identity string
	hash     uint64
}

// NewSetKey returns the key of the set of a block that what describes: canonical matchers and final
// labels. Different sets must have different descriptions. The block number is the process's own.
func NewSetKey(blockNumber uint32, blockID ulid.ULID, what []byte) SetKey {
	identity := make([]byte, 0, 4+len(blockID)+len(what))
	identity = binary.BigEndian.AppendUint32(identity, blockNumber)
	identity = append(identity, blockID[:]...)
	identity = append(identity, what...)
	return SetKey{Identity: string(identity), hash: xxhash.Sum64(identity)}
}

// SeriesSets keeps series sets of type S, which package block makes, and decides when building one
// pays (Pays). It bounds the bytes of the sets under construction, too. It is safe for concurrent
// use.
//
// A set that is evicted while requests read it stays in memory until the last of them is done.
// Until then its bytes count as those of a set under construction. So all series sets together stay
// within the allowance, and fewer are built while much is still read.
type SeriesSets[S any] struct {
	values   *bytecache.Values[*keptSet[S]]
	reserved atomic.Int64 // bytes of sets that are under construction, or evicted and still read
	maxSet   int64
	putting  sync.Mutex // held while a set is taken in

	mu sync.Mutex // guards the readers of keptSets; never held while calling out

	requested, oversized filter

	counts    setCounts
	collector *setsCollector
	reg       prometheus.Registerer // nil: none
}

// setCounts are counters for metrics.
type setCounts struct{ coalesced, tooLarge, noMemory atomic.Int64 }

// keptSet is a set and its identity.
type keptSet[S any] struct {
	identity string
	set      S
	bytes    int64

	// Guarded by SeriesSets.mu. INVARIANT: bytes are part of SeriesSets.reserved while the set is
	// evicted and has readers.
	readers int
	evicted bool
}

// NewSeriesSets returns a cache of series sets that uses maxBytes in all, those under construction
// included; nil if maxBytes is not positive. A set of 50,000 series with ten labels and two chunks
// needs about 18 MB, and the largest set that is kept uses a third of maxBytes. The cache must be
// closed.
func NewSeriesSets[S any](maxBytes int64, reg prometheus.Registerer) *SeriesSets[S] {
	if maxBytes <= 0 {
		return nil
	}
	s := &SeriesSets[S]{maxSet: maxBytes / buildingShare, reg: reg}
	s.values = bytecache.NewValues[*keptSet[S]](bytecache.Options{
		MaxBytes:           maxBytes - s.maxSet,
		MaxValueBytes:      s.maxSet,
		PendingApart:       true,
		ExpectedValueBytes: expectedSetBytes,
		Name:               setsName,
		Registerer:         reg,
	})
	s.values.OnExit(s.exit)
	if reg != nil {
		s.collector = newSetsCollector(&s.counts, &s.reserved)
		reg.MustRegister(s.collector)
	}
	return s
}

// Get returns a set. The caller must call release once it no longer reads the set.
func (s *SeriesSets[S]) Get(k SetKey) (set S, release func(), ok bool) {
	v, ok := s.values.Get(k.hash)
	if !ok || v.identity != k.Identity {
		return set, nil, false
	}
	return v.set, s.read(v), true
}

// GetAgain is Get for a request whose Get found nothing. It does not count another look-up. If the
// set is there by now, the request counts as coalesced.
func (s *SeriesSets[S]) GetAgain(k SetKey) (set S, release func(), ok bool) {
	v, ok := s.values.Peek(k.hash)
	if !ok || v.identity != k.Identity {
		return set, nil, false
	}
	s.Joined()
	return v.set, s.read(v), true
}

// Put offers a set of the given size, which is read until release is called. wanted is what Pays
// returned: a set that is not wanted is evicted unless it is requested again soon. The caller
// releases the bytes that it has reserved for the set only after Put, because until then the cache
// does not account for them.
func (s *SeriesSets[S]) Put(k SetKey, set S, bytes int64, wanted bool) (release func()) {
	s.putting.Lock()
	defer s.putting.Unlock()
	v := &keptSet[S]{identity: k.Identity, set: set, bytes: bytes}
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

// read counts a reader of a set.
func (s *SeriesSets[S]) read(v *keptSet[S]) (release func()) {
	s.update(v, 1, false)
	return sync.OnceFunc(func() { s.update(v, -1, false) })
}

// exit notes that the cache does not hold a set.
func (s *SeriesSets[S]) exit(v *keptSet[S]) { s.update(v, 0, true) }

// update changes the number of a set's readers, and whether it is evicted.
func (s *SeriesSets[S]) update(v *keptSet[S], readers int, evicted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reserved := func() int64 {
		if v.evicted && v.readers > 0 {
			return v.bytes
		}
		return 0
	}
	before := reserved()
	v.readers += readers
	v.evicted = v.evicted || evicted
	s.reserved.Add(reserved() - before)
}

// TryReserve reserves n more bytes for sets under construction, if they are free.
func (s *SeriesSets[S]) TryReserve(n int64) bool {
	if s.reserved.Add(n) <= s.maxSet {
		return true
	}
	s.reserved.Add(-n)
	s.counts.noMemory.Add(1)
	return false
}

// Release releases n reserved bytes.
func (s *SeriesSets[S]) Release(n int64) { s.reserved.Add(-n) }

// ReservedBytes returns the bytes of sets that are under construction, or evicted and still read.
func (s *SeriesSets[S]) ReservedBytes() int64 { return s.reserved.Load() }

// MaxSetBytes returns the size limit of a set.
func (s *SeriesSets[S]) MaxSetBytes() int64 { return s.maxSet }

// Joined counts a request that shares the construction of another request's set.
func (s *SeriesSets[S]) Joined() { s.counts.coalesced.Add(1) }

// Coalesced returns the number of such requests.
func (s *SeriesSets[S]) Coalesced() int64 { return s.counts.coalesced.Load() }

// Stats returns the figures of the memory that keeps the sets.
func (s *SeriesSets[S]) Stats() bytecache.Stats { return s.values.Stats() }

// Close drops all sets and unregisters the metrics. A nil SeriesSets may be closed.
func (s *SeriesSets[S]) Close() {
	if s == nil {
		return
	}
	if s.collector != nil {
		s.reg.Unregister(s.collector)
	}
	s.values.Close()
}
