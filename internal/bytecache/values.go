package bytecache

import (
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/dgraph-io/ristretto/v2"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	defaultMaxBytes      = 64 << 20
	defaultExpectedValue = 8 << 10

	// entryOverhead is the cost of a kept value besides its own bytes: the entry (64 B), its places
	// in our table (16 B), in ristretto's (64 B with the key) and in its table of costs (16 B), and
	// the tables' empty places. TestMemoryHoldsItsSize measures it.
	entryOverhead = 224

	// ristretto's buffer has 32,768 places.
	//
	// INVARIANT: fewer values are pending than that, so that ristretto's Set always finds a place.
	maxPendingItems = 16 << 10
	// minPendingBytes prevents small caches from waiting for ristretto all the time.
	minPendingBytes = 64 << 10
	maxPendingBytes = 8 << 20
	shardBits       = 6
)

// Options of a Values or a Memory. The zero value works.
type Options struct {
	// MaxBytes is the limit of the cache: values, bookkeeping and values not yet applied. 64 MiB by
	// default. A tenth is for the queue of recent values, see recent. Up to about 0.4 MiB are
	// fixed; a smaller cache refuses every value.
	MaxBytes int64
	// MaxValueBytes is the size of the largest value that is accepted; by default a 64th of
	// MaxBytes, at least 32 KiB and at most 4 MiB. Twice as much is set aside for values that are
	// not yet applied, and is not available to the others. If all values have one size, such as a
	// page's, set it to that size.
	MaxValueBytes int64
	// PendingApart excludes values not yet applied from MaxBytes: the caller of Set accounts for
	// them until Wait returns.
	PendingApart bool
	// ExpectedValueBytes is the usual size of a value, 8 KiB by default. It determines the number
	// of access counters (about 5 bytes for each of 10 per expected value, out of MaxBytes) and the
	// memory of dropped keys. If it is too large, the cache keeps less useful values; if it is too
	// small, it wastes memory.
	ExpectedValueBytes int64
	// Name is the label `cache` of the metrics.
	Name string
	// Registerer registers the metrics. Nil: no metrics.
	Registerer prometheus.Registerer
}

// Values is a cache in the heap for values of any type, each with its size in bytes. It is safe for
// concurrent use. Make it with NewValues.
type Values[V any] struct {
	policy       *ristretto.Cache[uint64, *entry[V]]
	maxBytes     int64
	maxValue     int64
	maxKept      int64 // limit of what ristretto keeps
	pendingLimit int64
	collector    *collector

	pendingBytes, pendingItems atomic.Int64
	bytes                      atomic.Int64
	added, departed, evictions atomic.Int64
	tooLarge, crowded, refused atomic.Int64

	left  func(V)                               // see OnExit
	onUse func(key uint64, value V, asked bool) // see Memory.OnUse; nil: none

	// last is the entry that ristretto applies now, or applied last. Only its goroutine uses it.
	last *entry[V]

	accesses chan *accessLog // to the goroutine of count
	logs     sync.Pool       // of *accessLog, empty
	misses   missLog
	counted  chan struct{} // closed when count has returned
	closing  atomic.Bool   // count need not pass on what is left

	recent recent[V]
	life   sync.RWMutex
	closed bool // guarded by life

	shards [1 << shardBits]shard[V]
}

// shard is a part of the keys.
type shard[V any] struct {
	mu sync.Mutex // guards all of the shard, and its entries
	// table contains every value that was set and neither rejected nor evicted; nil if the cache is
	// closed.
	//
	// INVARIANT: a value that is recent, in ristretto, or on its way there, is in table, unless it
	// was deleted. Set adds it first, and depart removes it when it is in none of them.
	table map[uint64]*entry[V]
	log   *accessLog // of hits

	requests, hits, hitBytes int64

	_ [64]byte // keeps the counters of neighbours off this cache line
}

// entry is a kept value.
type entry[V any] struct {
	key   uint64 // mixed
	value V
	size  int64     // of the value found
	cost  int64     // of the value and its bookkeeping
	next  *entry[V] // in recent; guarded by its lock
	gone  bool      // deleted
	soon  uint8     // look-ups before it counted as asked
	asked bool      // see noteAsked; also set by SetAsked
	born  uint32    // recent.pushedKiB when it was set
	// settled entries are no longer pending. Only ristretto's goroutine uses it.
	settled bool
}

// NewValues returns an empty cache.
func NewValues[V any](o Options) *Values[V] {
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.ExpectedValueBytes <= 0 {
		o.ExpectedValueBytes = defaultExpectedValue
	}
	m := &Values[V]{maxBytes: o.MaxBytes}
	m.pendingLimit = min(max(o.MaxBytes/32, minPendingBytes), maxPendingBytes)
	m.maxValue = m.pendingLimit / 2
	if o.MaxValueBytes > 0 {
		m.maxValue = o.MaxValueBytes
	}
	// INVARIANT: two values may be pending, see reserve.
	m.pendingLimit = max(m.pendingLimit, 2*(m.maxValue+entryOverhead))
	expected := min(max(o.MaxBytes/(o.ExpectedValueBytes+entryOverhead), 1<<7), 1<<27)
	counters := 10 * expected
	m.recent.maxBytes = o.MaxBytes / recentShare
	m.recent.dropped = newMemo(expected)
	maxCost := o.MaxBytes - m.recent.maxBytes - countersSize(counters) - memoSize(expected)
	if !o.PendingApart {
		maxCost -= m.pendingLimit
	}
	maxCost = max(maxCost, 1)
	m.maxKept = maxCost
	m.maxValue = min(m.maxValue, maxCost-entryOverhead)

	policy, err := ristretto.NewCache(&ristretto.Config[uint64, *entry[V]]{
		NumCounters:        counters,
		MaxCost:            maxCost,
		BufferItems:        countBatch,
		IgnoreInternalCost: true, // part of entryOverhead
		KeyToHash:          func(mixed uint64) (uint64, uint64) { return mixed, 0 },
		Cost:               m.applying,
		ShouldUpdate:       func(_, _ *entry[V]) bool { return false },
		OnEvict:            m.onEvict,
		OnReject:           m.onReject,
		OnExit:             m.onExit,
	})
	if err != nil {
		// Only sizes that are not positive are refused, and these are positive.
		panic("bytecache: ristretto refuses its configuration: " + err.Error())
	}
	m.policy = policy
	m.logs.New = func() any { return new(accessLog) }
	m.misses.log = new(accessLog)
	m.accesses = make(chan *accessLog, accessLogs)
	m.counted = make(chan struct{})
	for i := range m.shards {
		m.shards[i].table = map[uint64]*entry[V]{}
		m.shards[i].log = new(accessLog)
	}
	go m.count()
	m.collector = register(o.Registerer, o.Name, TierMemory, m)
	return m
}

// countersSize returns the size in bytes of ristretto's sketch (4 rows of half a byte, a power of
// two of them), Bloom filter (a power of two of bits, about 9.6 per counter) and buffer.
func countersSize(counters int64) int64 {
	pow2 := func(n int64) int64 { return 1 << bits.Len64(uint64(n-1)) }
	return 2*pow2(counters) + pow2(int64(math.Ceil(float64(counters)*9.6)))/8 +
		32<<10*int64(unsafe.Sizeof(uintptr(0)))
}

// mix maps keys to keys, one to one, so that each bit of the key affects every bit of the result
// (the finalizer of splitmix64: each step is invertible). Keys are consecutive numbers; ristretto
// selects shards and counters by low bits.
func mix(k uint64) uint64 {
	k ^= k >> 30
	k *= 0xbf58476d1ce4e5b9
	k ^= k >> 27
	k *= 0x94d049bb133111eb
	k ^= k >> 31
	return k
}

// shardOf uses high bits, because the low ones select ristretto's shard.
func (m *Values[V]) shardOf(mixed uint64) *shard[V] { return &m.shards[mixed>>(64-shardBits)] }

// Get returns the value of a key. It does not allocate.
func (m *Values[V]) Get(key uint64) (value V, ok bool) {
	mixed := mix(key)
	s := m.shardOf(mixed)
	s.mu.Lock()
	s.requests++
	if s.table == nil {
		s.mu.Unlock()
		return value, false
	}
	e := s.table[mixed]
	if e == nil {
		m.logMiss(mixed)
		s.mu.Unlock()
		return value, false
	}
	if s.log.add(mixed) {
		s.log = m.handOver(s.log)
	}
	first, asked := m.noteAsked(e)
	value = e.value
	s.hits++
	s.hitBytes += e.size
	s.mu.Unlock()
	if m.onUse != nil && (first || asked) {
		m.onUse(key, value, asked)
	}
	return value, true
}

// noteAsked records a look-up of an entry. A look-up some time after the value was set, or the
// third of those before that, comes from another request than the one that set it. The caller holds
// the shard's mu. first is true for the first look-up of an entry, and asked for the one that makes
// it asked.
func (m *Values[V]) noteAsked(e *entry[V]) (first, asked bool) {
	if e.asked { // avoids a write where many read
		return false, false
	}
	e.soon++
	e.asked = e.soon == soonLooks ||
		int64(m.recent.pushedKiB()-e.born)<<10-e.cost >= m.recent.maxBytes/soonShare
	return e.soon == 1, e.asked
}

// OnExit sets a function that is called once for every value that the cache drops: evicted, or
// refused after Set accepted it. The call may come from any goroutine. Call OnExit before the first
// Set. f must not call the cache.
func (m *Values[V]) OnExit(f func(V)) { m.left = f }

// Peek is Get without counting: neither a look-up nor a use of the value.
func (m *Values[V]) Peek(key uint64) (value V, ok bool) {
	mixed := mix(key)
	s := m.shardOf(mixed)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.table[mixed]; e != nil {
		return e.value, true
	}
	return value, false
}

// again is Get for a key that Get has just missed. A second miss counts neither as a look-up nor
// with the policy.
func (m *Values[V]) again(key uint64) (value V, ok bool) {
	mixed := mix(key)
	s := m.shardOf(mixed)
	s.mu.Lock()
	e := s.table[mixed]
	if e == nil {
		s.mu.Unlock()
		return value, false
	}
	first, asked := m.noteAsked(e)
	value = e.value
	s.requests++
	s.hits++
	s.hitBytes += e.size
	s.mu.Unlock()
	if m.onUse != nil && (first || asked) {
		m.onUse(key, value, asked)
	}
	return value, true
}

// Set keeps a value that uses size bytes of the heap, unless its key is present or it is too large.
// Later Sets decide whether it stays. The cache owns the value from the call on. Set may wait until
// earlier values are applied.
func (m *Values[V]) Set(key uint64, value V, size int64) { m.set(key, value, size, size, false) }

// SetAsked is Set for a key that was requested before its last miss: it need not be requested again
// to be kept.
func (m *Values[V]) SetAsked(
	key uint64, value V, size int64,
) {
	m.set(key, value, size, size, true)
}

// set implements Set and SetAsked for a value of size bytes that uses `takes` bytes of memory.
func (m *Values[V]) set(key uint64, value V, size, takes int64, asked bool) {
	if takes > m.maxValue {
		m.tooLarge.Add(1)
		return
	}
	if e := m.insert(mix(key), value, size, takes+entryOverhead, asked); e != nil {
		m.push(e)
	}
}

// insert puts a value into its shard's table and returns its entry. It returns nil if the key is
// present or the cache is closed.
func (m *Values[V]) insert(mixed uint64, value V, size, cost int64, asked bool) *entry[V] {
	s := m.shardOf(mixed)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table == nil || s.table[mixed] != nil {
		return nil
	}
	e := &entry[V]{key: mixed, value: value, size: size, cost: cost, asked: asked,
		born: m.recent.pushedKiB()}
	s.table[mixed] = e
	m.bytes.Add(cost)
	m.added.Add(1)
	return e
}

// Del removes a key. The next Set of it may have another value. Del may wait until earlier values
// are applied.
func (m *Values[V]) Del(key uint64) {
	mixed := mix(key)
	m.life.RLock()
	defer m.life.RUnlock()
	if m.closed || !m.forget(mixed) {
		return
	}
	// This removes a value that is in ristretto or on its way there. A recent one is removed when
	// it leaves the queue.
	m.policy.Del(mixed)
}

// forget removes a key's entry from the table, and reports whether there was one.
func (m *Values[V]) forget(mixed uint64) bool {
	s := m.shardOf(mixed)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.table[mixed]
	if e == nil {
		return false
	}
	var none V
	e.value, e.gone = none, true
	delete(s.table, mixed)
	return true
}

// Wait returns when all earlier values are applied: kept within MaxBytes, or refused.
func (m *Values[V]) Wait() {
	m.life.RLock()
	defer m.life.RUnlock()
	if !m.closed {
		m.policy.Wait()
	}
}

// reserve reserves memory for a pending value. If the limit is reached, it waits until ristretto
// has applied all pending values but the last. The caller holds recent.mu, so that no other
// goroutine reserves.
func (m *Values[V]) reserve(cost int64) {
	if m.pendingBytes.Load()+cost > m.pendingLimit || m.pendingItems.Load() >= maxPendingItems {
		m.life.RLock()
		if !m.closed {
			m.policy.Wait()
		}
		m.life.RUnlock()
	}
	m.pendingBytes.Add(cost)
	m.pendingItems.Add(1)
}

func (m *Values[V]) release(cost int64) {
	m.pendingBytes.Add(-cost)
	m.pendingItems.Add(-1)
}

// applying is called by ristretto's goroutine for the cost of the value that it is about to apply.
// There is one such goroutine, so the previous value has been applied: ristretto holds it, or has
// rejected it. The last value set is known to be applied only when another follows: one value may
// stay pending.
func (m *Values[V]) applying(e *entry[V]) int64 {
	m.settle(m.last)
	m.last = e
	return e.cost
}

// onReject is called by ristretto's goroutine for a value that the admission policy refuses.
func (m *Values[V]) onReject(item *ristretto.Item[*entry[V]]) {
	m.refused.Add(1)
	m.settle(item.Value)
}

// onEvict is called by ristretto's goroutine for an evicted value, and again without the value if
// its sample contained the key twice.
func (m *Values[V]) onEvict(item *ristretto.Item[*entry[V]]) {
	if item.Value != nil {
		m.evictions.Add(1)
	}
}

// settle ends the accounting of a value as pending.
func (m *Values[V]) settle(e *entry[V]) {
	if e != nil && !e.settled {
		e.settled = true
		m.release(e.cost)
	}
}

// onExit is called by ristretto exactly once for every value that leaves it or was never accepted.
func (m *Values[V]) onExit(e *entry[V]) {
	if e != nil {
		m.depart(e)
	}
}

// depart drops an entry that is neither in recent nor in ristretto.
func (m *Values[V]) depart(e *entry[V]) {
	s := m.shardOf(e.key)
	s.mu.Lock()
	if s.table[e.key] == e {
		delete(s.table, e.key)
	}
	left := m.left
	if e.gone {
		left = nil
	}
	value := e.value
	s.mu.Unlock()
	m.departed.Add(1)
	m.bytes.Add(-e.cost)
	if left != nil {
		left(value)
	}
}

// Close drops all values and stops the cache's goroutines. Concurrent and later calls are harmless:
// every Get misses, every Set does nothing.
func (m *Values[V]) Close() {
	m.recent.mu.Lock()
	defer m.recent.mu.Unlock()
	m.life.Lock()
	defer m.life.Unlock()
	if m.closed {
		return
	}
	m.closed, m.recent.closed = true, true
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		s.table = nil
		s.mu.Unlock()
	}
	for e := m.recent.first; e != nil; e = e.next {
		m.depart(e)
	}
	m.recent.first, m.recent.last, m.recent.bytes = nil, nil, 0
	// INVARIANT: from here on only count calls into ristretto. Every other call is made under a
	// shard's mu, or life, after checking that the cache is open.
	m.closing.Store(true)
	close(m.accesses)
	<-m.counted
	evictions := m.evictions.Load()
	m.policy.Close()
	m.evictions.Store(evictions) // it reports every value as evicted
	m.collector.unregister()
}
