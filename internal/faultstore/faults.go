package faultstore

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Rule says which calls meet which fault.
type Rule struct {
	Kind Kind
	// Ops are the operations that the rule matches, as objstore names them (objstore.OpGetRange,
	// ...). Default: all that can meet the kind.
	Ops []string
	// Match restricts the rule to some objects. Default nil: all. For a listing, name is its
	// folder. Match must not call Faults.
	Match func(op, name string) bool
	// From and To restrict the rule to reads that begin in [From,To) of the object. To 0: no end.
	From, To int64
	// Skip is the number of matching calls that meet no fault first.
	Skip int
	// Count is the number of calls that meet the fault before the rule is used up. 0: no limit.
	Count int
	// Probability is the share of the matching calls that meet the fault. 0: all of them.
	Probability float64
	// At is the number of bytes of a body, or of entries of a listing, before the fault, or the
	// number of the byte with a flipped bit. 0: drawn from the seed. Negative: 0.
	At int64
	// Delay is how long SlowFirstByte waits (0: 100 ms), or how long StalledBody stalls (0: for
	// ever).
	Delay time.Duration
}

// Fault is a fault that was drawn for a call.
type Fault struct {
	Kind  Kind
	Delay time.Duration

	at   int64
	draw uint64
}

// At returns the part at which the fault happens, of n parts: from 0 to n-1.
func (f Fault) At(n int64) int64 {
	switch {
	case f.at < 0 || n <= 0:
		return 0
	case f.at > 0:
		return min(f.at, max(n-1, 0))
	}
	return int64(f.draw>>8) % n
}

// Bit returns a mask of the bit to flip.
func (f Fault) Bit() byte { return 1 << (f.draw & 7) }

// Faults decides which calls meet a fault. Any number of buckets and servers may share one. The nil
// Faults has no faults.
type Faults struct {
	mu     sync.Mutex
	rand   *rand.Rand
	rules  []*state
	counts map[Kind]int
}

// state is a rule with the number of calls that it has matched and hit.
type state struct {
	Rule
	seen, hit int
}

// New returns Faults without rules. Calls that come in the same order meet the same faults for the
// same seed.
func New(seed uint64) *Faults {
	return &Faults{rand: rand.New(rand.NewPCG(seed, 0x6c617264)), counts: map[Kind]int{}}
}

// Set replaces all rules. The first rule that hits a call decides about it.
func (f *Faults) Set(rules ...Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
	for _, r := range rules {
		f.rules = append(f.rules, &state{Rule: r})
	}
}

// Heal removes all rules.
func (f *Faults) Heal() { f.Set() }

// Counts returns the number of calls that have met each kind since the start.
func (f *Faults) Counts() map[Kind]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts := map[Kind]int{}
	for k, n := range f.counts {
		counts[k] = n
	}
	return counts
}

// Total returns the number of calls that have met a fault since the start.
func (f *Faults) Total() int {
	n := 0
	for _, c := range f.Counts() {
		n += c
	}
	return n
}

// Draw decides about a call. off is the offset of a read. ok reports that the call meets the fault.
func (f *Faults) Draw(op, name string, off int64) (fault Fault, ok bool) {
	if f == nil {
		return Fault{}, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.rules {
		if !r.concerns(op, name, off) || r.Count > 0 && r.hit == r.Count {
			continue
		}
		if r.seen++; r.seen <= r.Skip {
			continue
		}
		if r.Probability > 0 && f.rand.Float64() >= r.Probability {
			continue
		}
		r.hit++
		f.counts[r.Kind]++
		fault := Fault{Kind: r.Kind, Delay: r.Delay, at: r.At, draw: f.rand.Uint64()}
		if fault.Kind == SlowFirstByte && fault.Delay == 0 {
			fault.Delay = 100 * time.Millisecond
		}
		return fault, true
	}
	return Fault{}, false
}

func (r *state) concerns(op, name string, off int64) bool {
	return r.Kind.hits(op) && off >= r.From && (r.To == 0 || off < r.To) &&
		(len(r.Ops) == 0 || slices.Contains(r.Ops, op)) &&
		(r.Match == nil || r.Match(op, name))
}
