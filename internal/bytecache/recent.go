package bytecache

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// recentShare is the divisor of MaxBytes for the queue of recent values, which the policy does not
// see yet. With a smaller queue, values leave before they are requested again; a larger one gives
// more of the cache to scans.
const recentShare = 10

// The request that set a value may look it up again itself: if one window of chunks ends and the
// next starts within a page, or if a record is longer than expected. That is not a second request.
// Therefore a look-up counts as one if an eighth of the queue was set since the value was set, or
// if it is the third look-up.
const (
	soonShare = 8
	soonLooks = 3
)

// recent is the queue in which values start, first in, first out. A value that leaves it goes to
// the policy if there is free space, if it was requested while it was in the queue (see soonShare),
// or if it was set again soon after it left the queue without a request. Other values are dropped,
// but their keys are remembered.
//
// Therefore a scan never reaches the policy. The policy's own counters do not prevent that: it
// forgets half of its counts periodically, admits ties, and evicts any of several values that are
// used equally often.
type recent[V any] struct {
	// mu guards all fields, and is held while values are passed to the policy: one goroutine at a
	// time does that.
	mu          sync.Mutex
	first, last *entry[V]
	bytes       int64
	maxBytes    int64
	pushed      atomic.Int64 // bytes of all values pushed so far
	dropped     memo
	closed      bool
}

// pushedKiB returns the KiB pushed so far. It wraps around: only differences count.
func (r *recent[V]) pushedKiB() uint32 { return uint32(r.pushed.Load() >> 10) }

// push adds a new value, which the caller has put into its shard's table. It may wait for the
// policy to accept the values that have to leave the queue.
func (m *Values[V]) push(e *entry[V]) {
	r := &m.recent
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		m.depart(e)
		return
	}
	if e.cost > r.maxBytes {
		m.pass(e) // it would push out all others before itself
		return
	}
	if r.last == nil {
		r.first = e
	} else {
		r.last.next = e
	}
	r.last = e
	r.bytes += e.cost
	r.pushed.Add(e.cost)
	for r.bytes > r.maxBytes {
		e := r.first
		r.bytes -= e.cost
		r.first, e.next = e.next, nil
		if r.first == nil {
			r.last = nil
		}
		m.pass(e)
	}
}

// pass gives a value that has left the queue to the policy, or drops it. The caller holds
// recent.mu.
func (m *Values[V]) pass(e *entry[V]) {
	r := &m.recent
	back := r.dropped.has(e.key)
	fits := m.bytes.Load()-r.bytes <= m.maxKept
	m.reserve(e.cost)
	if m.admit(e, fits || back) {
		return
	}
	m.release(e.cost)
	m.depart(e)
}

// admit gives a value to the policy if should is true or the value was requested.
func (m *Values[V]) admit(e *entry[V], should bool) bool {
	s := m.shardOf(e.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.table == nil || e.gone:
		return false
	case !should && !e.asked:
		m.refused.Add(1)
		m.recent.dropped.add(e.key)
		return false
	}
	m.flushMisses()
	if !m.policy.Set(e.key, e, 0) { // a cost of 0 makes it call applying
		m.crowded.Add(1)
		return false
	}
	return true
}

// memo remembers about the last n keys that were added. Each key has four places in it, and
// replaces the oldest of them.
type memo struct {
	n     uint32
	added uint32
	// places hold 32 bits of the key, then the number of its addition. The other bits of the key
	// select the group of four.
	places [][memoWays]uint64
}

const memoWays = 4

// memoGroups returns the number of groups of four places in a memo of n keys: at least two places
// per key.
func memoGroups(n int64) int64 { return 1 << bits.Len64(uint64(2*n-1)) / memoWays }

// memoSize returns the size in bytes of a memo of n keys.
func memoSize(n int64) int64 { return memoGroups(n) * memoWays * 8 }

// newMemo returns a memo of at least two keys.
func newMemo(n int64) memo {
	// Empty places look as old as forgotten keys.
	return memo{n: uint32(n), added: uint32(n), places: make([][memoWays]uint64, memoGroups(n))}
}

func (m *memo) group(key uint64) *[memoWays]uint64 { return &m.places[key&uint64(len(m.places)-1)] }

// age returns how many keys were added after the one at a place.
func (m *memo) age(place uint64) uint32 { return m.added - uint32(place) }

func (m *memo) has(key uint64) bool {
	for _, place := range m.group(key) {
		if place>>32 == key>>32 && m.age(place) < m.n {
			return true
		}
	}
	return false
}

func (m *memo) add(key uint64) {
	m.added++
	g := m.group(key)
	oldest := 0
	for i, place := range g {
		if m.age(place) > m.age(g[oldest]) {
			oldest = i
		}
	}
	g[oldest] = key>>32<<32 | uint64(m.added)
}
