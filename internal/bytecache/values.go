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

	// entryOverhead is what a kept value costs besides its own bytes: the
	// entry (64 B), its places in our table (16 B), in ristretto's (64 B with
	// the key) and in its table of costs (16 B), and the tables' empty places.
	// TestMemoryHoldsItsSize measures it.
	entryOverhead = 224

	// ristretto's buffer has 32,768 places. INVARIANT: fewer values are
	// pending than that, so its Set always finds one.
	maxPendingItems = 16 << 10
	// minPendingBytes keeps small caches from taking turns all the time.
	minPendingBytes = 64 << 10
	maxPendingBytes = 8 << 20
	shardBits       = 6
)

// Options of a Values or a Memory. The zero value works.
type Options struct {
	// MaxBytes that the cache may hold in all: values, bookkeeping and values
	// not yet applied. 64 MiB by default. A tenth is for values set last, see
	// recent; up to about 0.4 MiB go to fixed parts: a cache of less than that
	// refuses every value.
	MaxBytes int64
	// MaxValueBytes refuses values that take more; by default a 64th of MaxBytes,
	// at least 32 KiB and at most 4 MiB. Twice as much is set aside for values
	// that are not yet applied, and is not available to those that are. Where all
	// values may have one size, a page's, that is what to give.
	MaxValueBytes int64
	// PendingApart says that values not yet applied do not count towards
	// MaxBytes: whoever sets them accounts for them until Wait returns.
	PendingApart bool
	// ExpectedValueBytes is the usual size of a value, 8 KiB by default. It
	// sizes the access counters (about 5 bytes for each of 10 per expected
	// value, out of MaxBytes) and the memory of dropped keys: too large a figure
	// makes for worse choices of what to keep, too small a one wastes memory.
	ExpectedValueBytes int64
	// Name is the label `cache` of the metrics.
	Name string
	// Registerer receives the metrics. Nil: none.
	Registerer prometheus.Registerer
}

// Values is a cache in the heap of values of any kind, each with the bytes that
// it takes. It is safe for concurrent use; make it with NewValues.
type Values[V any] struct {
	policy       *ristretto.Cache[uint64, *entry[V]]
	maxBytes     int64
	maxValue     int64
	maxKept      int64 // by ristretto
	pendingLimit int64
	collector    *collector

	pendingBytes, pendingItems atomic.Int64
	bytes                      atomic.Int64
	added, departed, evictions atomic.Int64
	tooLarge, crowded, refused atomic.Int64

	left func(V) // see OnExit

	// last is the entry that ristretto applies now, or applied last. Only its
	// goroutine touches it.
	last *entry[V]

	accesses chan *accessLog // to the goroutine of count
	logs     sync.Pool       // of *accessLog, empty
	misses   missLog
	counted  chan struct{} // closed when count has returned
	closing  atomic.Bool   // count need not tell what is left

	recent recent[V]
	life   sync.RWMutex
	closed bool // guarded by life

	shards [1 << shardBits]shard[V]
}

// shard is a part of the keys.
type shard[V any] struct {
	mu sync.Mutex // guards all of the shard, and its entries
	// table holds every value that was set and neither rejected nor evicted.
	// INVARIANT: what is recent, in ristretto, or on its way there, is in here,
	// unless it was deleted: Set puts a value here first, and depart takes it out
	// when it is in none of them any more. nil when the cache is closed.
	table map[uint64]*entry[V]
	log   *accessLog // of hits

	requests, hits, hitBytes int64

	_ [64]byte // keeps neighbours' counters off this cache line
}

// entry is a kept value.
type entry[V any] struct {
	key   uint64 // mixed
	value V
	size  int64     // of what is found
	cost  int64     // what it takes, and bookkeeping
	next  *entry[V] // in recent; guarded by its lock
	gone  bool      // deleted
	soon  uint8     // look-ups before it was asked
	asked bool      // see noteAsked; or set by SetAsked
	born  uint32    // recent.pushedKiB before it was
	// settled entries are no longer pending. Only ristretto's goroutine touches it.
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
		IgnoreInternalCost: true, // entryOverhead has it
		KeyToHash:          func(mixed uint64) (uint64, uint64) { return mixed, 0 },
		Cost:               m.applying,
		ShouldUpdate:       func(_, _ *entry[V]) bool { return false },
		OnEvict:            m.onEvict,
		OnReject:           m.onReject,
		OnExit:             m.onExit,
	})
	if err != nil {
		// It refuses only sizes that are not positive, and these are.
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
	m.collector = register(o.Registerer, o.Name, tierMemory, m)
	return m
}

// countersSize returns the bytes of ristretto's sketch (4 rows of half a byte,
// a power of two of them), Bloom filter (a power of two of bits, about 9.6 per
// counter) and buffer.
func countersSize(counters int64) int64 {
	pow2 := func(n int64) int64 { return 1 << bits.Len64(uint64(n-1)) }
	return 2*pow2(counters) + pow2(int64(math.Ceil(float64(counters)*9.6)))/8 +
		32<<10*int64(unsafe.Sizeof(uintptr(0)))
}

// mix maps keys to keys, one to one, so that all bits of the key bear on every
// bit of the result (the finalizer of splitmix64: each step can be undone). Keys
// are counters side by side; ristretto picks shards and counters by low bits.
func mix(k uint64) uint64 {
	k ^= k >> 30
	k *= 0xbf58476d1ce4e5b9
	k ^= k >> 27
	k *= 0x94d049bb133111eb
	k ^= k >> 31
	return k
}

// shardOf uses high bits: the low ones pick ristretto's shard.
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
	m.noteAsked(e)
	value = e.value
	s.hits++
	s.hitBytes += e.size
	s.mu.Unlock()
	return value, true
}

// noteAsked notes that an entry was found by a look-up: one that comes a while
// after it was set, or the third of those that come sooner, is of another request
// than it was set for. The caller holds its shard's mu.
func (m *Values[V]) noteAsked(e *entry[V]) {
	if e.asked { // not to write where many read
		return
	}
	e.soon++
	e.asked = e.soon == soonLooks ||
		int64(m.recent.pushedKiB()-e.born)<<10-e.cost >= m.recent.maxBytes/soonShare
}

// OnExit has f called with every value that the cache has let go of: evicted,
// or refused after Set took it in. Once for each, and from any goroutine. It is
// to be set before the first Set, and f must not call the cache.
func (m *Values[V]) OnExit(f func(V)) { m.left = f }

// Peek is Get without counting: neither as a request, nor in favour of the
// value.
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

// again is Get for a key that Get has just missed: missed once more, it counts
// neither as a look-up nor with the policy.
func (m *Values[V]) again(key uint64) (value V, ok bool) {
	mixed := mix(key)
	s := m.shardOf(mixed)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.table[mixed]
	if e == nil {
		return value, false
	}
	m.noteAsked(e)
	s.requests++
	s.hits++
	s.hitBytes += e.size
	return e.value, true
}

// Set keeps a value that takes size bytes of the heap, unless its key is present
// or it is too large; whether for longer is decided when others follow. The cache
// owns the value from here on. It may wait for values set before to be applied.
func (m *Values[V]) Set(key uint64, value V, size int64) { m.set(key, value, size, size, false) }

// SetAsked is Set for a key that was asked for before it was missed last: it need
// not be asked for again to be kept.
func (m *Values[V]) SetAsked(
	key uint64, value V, size int64,
) {
	m.set(key, value, size, size, true)
}

// set is Set or SetAsked of a value of size bytes that takes more.
func (m *Values[V]) set(key uint64, value V, size, takes int64, asked bool) {
	if takes > m.maxValue {
		m.tooLarge.Add(1)
		return
	}
	if e := m.insert(mix(key), value, size, takes+entryOverhead, asked); e != nil {
		m.push(e)
	}
}

// insert puts a value into its shard's table and returns its new entry, nil if
// there is one for the key, or the cache is closed.
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

// Del makes the cache forget a key, for which the next Set is another value's. It
// may wait for values set before to be applied.
func (m *Values[V]) Del(key uint64) {
	mixed := mix(key)
	m.life.RLock()
	defer m.life.RUnlock()
	if m.closed || !m.forget(mixed) {
		return
	}
	// What is in ristretto by now, or on its way there, goes; what is still
	// recent goes when it leaves the queue.
	m.policy.Del(mixed)
}

// forget takes a key's entry out of the table, and reports whether there was one.
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

// Wait returns when the values set before are applied: kept within MaxBytes, or
// refused.
func (m *Values[V]) Wait() {
	m.life.RLock()
	defer m.life.RUnlock()
	if !m.closed {
		m.policy.Wait()
	}
}

// reserve takes room for a pending value; where there is none, it waits until
// ristretto has applied what is pending, but for the last value of it. The caller
// holds recent.mu, so nobody else takes room.
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

// applying is called by ristretto's goroutine for the cost of the value it is
// about to apply. There is one such goroutine, so the value before this one
// has been applied: ristretto holds it, or rejected it. Of the last value set
// that is known only when another follows: one value may stay pending.
func (m *Values[V]) applying(e *entry[V]) int64 {
	m.settle(m.last)
	m.last = e
	return e.cost
}

// onReject is called by ristretto's goroutine for a value that the admission
// policy refuses.
func (m *Values[V]) onReject(item *ristretto.Item[*entry[V]]) {
	m.refused.Add(1)
	m.settle(item.Value)
}

// onEvict is called by ristretto's goroutine for a value that makes room, and
// again without the value when its sample held the key twice.
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

// onExit is called by ristretto for every value that leaves it, or that it
// never took in, exactly once.
func (m *Values[V]) onExit(e *entry[V]) {
	if e != nil {
		m.depart(e)
	}
}

// depart lets go of an entry that is neither in recent nor in ristretto.
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

// Close drops everything and stops the cache's goroutines. Calls that run or
// come later are harmless: every Get misses, every Set does nothing.
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
	// INVARIANT: from here on only count calls into ristretto: every other call
	// is made under a shard's mu, or life, after a look whether it is closed.
	m.closing.Store(true)
	close(m.accesses)
	<-m.counted
	evictions := m.evictions.Load()
	m.policy.Close()
	m.evictions.Store(evictions) // it says of every value that it was evicted
	m.collector.unregister()
}
