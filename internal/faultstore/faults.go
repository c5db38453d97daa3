package faultstore

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Rule is one thing that goes wrong.
type Rule struct {
	Kind Kind
	// Ops are the operations that it concerns, as objstore names them (objstore.OpGetRange, ...);
	// none: all that can meet the kind.
	Ops []string
	// Match narrows it to some objects; nil: all. The name of a listing is its folder. It must not
	// call Faults.
	Match func(op, name string) bool
	// From and To narrow it to reads that begin in [From,To) of the object; To 0: no end.
	From, To int64
	// Skip is how many calls that it concerns go unharmed first.
	Skip int
	// Count is how many calls it hits before it is used up; 0: all until it is replaced.
	Count int
	// Probability is the share of the calls it concerns that it hits; 0: all of them.
	Probability float64
	// At is how many bytes of a body, or entries of a listing, come before the fault, and which
	// byte has a flipped bit. 0: drawn from the seed. Negative: none, or the first.
	At int64
	// Delay is how long SlowFirstByte waits; 0: 100 ms. StalledBody goes on after it; 0: never.
	Delay time.Duration
}

// Fault is one that was drawn.
type Fault struct {
	Kind  Kind
	Delay time.Duration

	at   int64
	draw uint64
}

// At is where the fault happens in something of n parts: from 0 to n-1.
func (f Fault) At(n int64) int64 {
	switch {
	case f.at < 0 || n <= 0:
		return 0
	case f.at > 0:
		return min(f.at, max(n-1, 0))
	}
	return int64(f.draw>>8) % n
}

// Bit is which bit of its byte is flipped.
func (f Fault) Bit() byte { return 1 << (f.draw & 7) }

// Faults decides which calls meet a fault. It may be shared by any number of buckets and servers.
// The nil Faults has none.
type Faults struct {
	mu     sync.Mutex
	rand   *rand.Rand
	rules  []*state
	counts map[Kind]int
}

// state is a rule and what was used of it.
type state struct {
	Rule
	seen, hit int
}

// New returns Faults without rules. Calls that come in the same order meet the same faults for the
// same seed.
func New(seed uint64) *Faults {
	return &Faults{rand: rand.New(rand.NewPCG(seed, 0x6c617264)), counts: map[Kind]int{}}
}

// Set replaces all rules. A call meets the first that draws it.
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

// Counts returns how many calls have met each kind since the start.
func (f *Faults) Counts() map[Kind]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts := map[Kind]int{}
	for k, n := range f.counts {
		counts[k] = n
	}
	return counts
}

// Total returns how many calls have met a fault.
func (f *Faults) Total() int {
	n := 0
	for _, c := range f.Counts() {
		n += c
	}
	return n
}

// Draw decides about a call, which reads the object from off on, if it reads. ok: it meets the
// fault.
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
