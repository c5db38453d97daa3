package warm

import (
	"math"
	"math/bits"
	"time"

	"github.com/oklog/ulid/v2"
)

// hotSet is a matcher set that is worth replaying for a block.
type hotSet struct {
	block ulid.ULID
	key   string
	score float64 // upper bound of the number of requests with the set on the block
}

// hot returns the hot sets of the blocks for which want returns true, at most maxHot, and when
// those blocks were last used, in Unix milliseconds.
func (r *Recorder) hot(want func(ulid.ULID) bool) (sets []hotSet, used map[ulid.ULID]int64) {
	now := time.Now().UnixMilli()
	used = map[ulid.ULID]int64{}
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.weight(now)
	wanted := make([]uint64, len(r.places)/markBlocks+1)
	for id, at := range r.blocks {
		if want(id) {
			used[id] = r.places[at].last
			wanted[at/markBlocks] |= 1 << (at % markBlocks)
		}
	}
	// between calls f for the pairs with from <= score < to.
	between := func(from, to float64, f func(s *set, at int, score float64)) {
		for _, s := range r.sets {
			if s.score/w < from {
				continue
			}
			for i, m := range s.marks {
				for b := (m.young | m.old) & wanted[i]; b != 0; b &= b - 1 {
					at := i*markBlocks + bits.TrailingZeros64(b)
					score := min(s.score, r.places[at].score) / w
					if score >= from && score < to {
						f(s, at, score)
					}
				}
			}
		}
	}
	// All pairs above a floor at which they fit, then as many as fit of those just below it.
	floor := hotScore
	for {
		n := 0
		between(floor, math.Inf(1), func(*set, int, float64) { n++ })
		if n <= maxHot {
			break
		}
		floor *= 2
	}
	add := func(s *set, at int, score float64) {
		if len(sets) < maxHot {
			sets = append(sets, hotSet{r.places[at].id, s.key, score})
		}
	}
	between(floor, math.Inf(1), add)
	if floor > hotScore {
		between(floor/2, floor, add)
	}
	return sets, used
}

// inherit records for a block the sets of the blocks that it replaces.
func (r *Recorder) inherit(id ulid.ULID, sets []hotSet) {
	if len(sets) == 0 {
		return
	}
	now := time.Now().UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.weight(now)
	r.changes++
	at, ok := r.place(id, now)
	if !ok {
		return
	}
	r.use(at, now, 0)
	for _, h := range sets {
		// The requests count for this block instead of the replaced one. They must not count
		// twice for the set.
		s := r.set([]byte(h.key), now)
		s.score = max(s.score, h.score*w)
		b := &r.places[at]
		b.score = max(b.score, h.score*w)
		r.extend(s, []int32{at})
		s.marks[at/markBlocks].young |= 1 << (at % markBlocks)
	}
}
