package bytecache

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// recentShare is the part of MaxBytes that is for values set last, and not
// looked at by the policy yet: a tenth. With less of it values leave before they
// are asked for again; more of it is lost to a scan.
const recentShare = 10

// The request that a value was set for may look it up again itself: where one
// window of chunks ends and the next begins within a page, or a record is longer
// than expected. That is not asking for it a second time, so what counts as such
// is a look-up after which an eighth of the queue was set since the value was, or
// the third look-up.
const (
	soonShare = 8
	soonLooks = 3
)

// recent is where values begin: a queue, first in, first out. Those that leave
// it go to the policy if there is room, if they were asked for while they were
// in it (see soonShare), or if they are back soon after they left it unasked.
// Others are dropped, but their keys are remembered.
//
// So a scan never gets to the policy. That is not left to the policy's own
// counters: it forgets half of what it has counted every so often, takes in what
// ties, and, among values that are used about as often, drops any.
type recent[V any] struct {
	// mu guards all here, and is held while values are handed to the policy:
	// there is one that hands over at a time.
	mu          sync.Mutex
	first, last *entry[V]
	bytes       int64
	maxBytes    int64
	pushed      atomic.Int64 // bytes of all values so far
	dropped     memo
	closed      bool
}

// pushedKiB returns how much has been pushed so far. It wraps: what counts are differences.
func (r *recent[V]) pushedKiB() uint32 { return uint32(r.pushed.Load() >> 10) }

// push takes in a new value, which the caller has put into its shard's table.
// What has to leave for it may have to wait for the policy.
func (m *Values[V]) push(e *entry[V]) {
	r := &m.recent
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		m.depart(e)
		return
	}
	if e.cost > r.maxBytes {
		m.pass(e) // it would push all others out before itself
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

// pass gives a value that is not in the queue any more to the policy, or drops
// it. The caller holds recent.mu.
func (m *Values[V]) pass(e *entry[V]) {
	r := &m.recent
	back := r.dropped.has(e.key)
	room := m.bytes.Load()-r.bytes <= m.maxKept
	m.reserve(e.cost)
	if m.admit(e, room || back) {
		return
	}
	m.release(e.cost)
	m.depart(e)
}

// admit gives a value to the policy if it should, or was asked for.
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

// memo remembers about the last n keys that were added: each has four places in
// it, of which it takes the one that was taken the longest ago.
type memo struct {
	n     uint32
	added uint32
	// places hold 32 bits of the key, then the number of its adding. The key's
	// other bits choose the four.
	places [][memoWays]uint64
}

const memoWays = 4

// memoGroups returns how many fours of places a memo of n keys has: at least
// two places a key.
func memoGroups(n int64) int64 { return 1 << bits.Len64(uint64(2*n-1)) / memoWays }

// memoSize returns the bytes of a memo of n keys.
func memoSize(n int64) int64 { return memoGroups(n) * memoWays * 8 }

// newMemo returns a memo of at least two keys.
func newMemo(n int64) memo {
	// Places that nothing was put into look as old as what is forgotten.
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
