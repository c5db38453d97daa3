package warm

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"larder/store/catalog"
)

// The bounds of what a Recorder holds. It takes some 100 bytes for a set of a block beside the text, which blocks share.
const (
	maxBlocks       = 4096
	maxSetsPerBlock = 64
	maxSets         = 4096
	maxTextBytes    = 1 << 20
	// maxSetBytes is the longest text of a set that is recorded: regular expressions of some hundred alternatives.
	maxSetBytes = 8 << 10
)

const (
	// halfLife is how long it takes until a request counts half.
	halfLife = 2 * time.Hour
	// hotScore is what a set must count to be replayed: one request within the last half-life, or several before.
	hotScore = 0.5
	// trimShare: what is too much goes an eighth at a time, so that finding the least used is paid for by many that come.
	trimShare = 8
)

// Recorder holds which matcher sets were asked of which blocks, how often and when last. It is bounded; the least used go. Its methods may be
// called from any goroutine.
type Recorder struct {
	mu        sync.Mutex // guards what follows
	blocks    map[ulid.ULID]*blockUse
	texts     map[string]*text
	sets      int   // of all blocks
	textBytes int64 // of texts
	changes   uint64
	tooLong   int64
	forgotten int64 // sets that made room
}

// text is a matcher set, shared by the blocks of which it was asked.
type text struct {
	key  string // as appendKey writes it
	uses int
}

type blockUse struct {
	last int64 // Unix milliseconds
	sets map[*text]setUse
}

// setUse counts requests, each half as much after every half-life.
type setUse struct {
	score float64
	last  int64 // Unix milliseconds at which score holds
}

func (u setUse) at(now int64) float64 {
	return u.score * math.Exp2(-float64(max(now-u.last, 0))/float64(halfLife.Milliseconds()))
}

// add returns u with a number of requests more, at a time that may lie before what is counted already.
func (u setUse) add(at int64, n float64) setUse {
	last := max(at, u.last)
	return setUse{score: min(u.at(last)+setUse{n, at}.at(last), maxScore), last: last}
}

// maxScore is beyond what requests come to.
const maxScore = 1e12

// NewRecorder returns an empty recorder.
func NewRecorder() *Recorder {
	return &Recorder{blocks: map[ulid.ULID]*blockUse{}, texts: map[string]*text{}}
}

// Note counts a request that asked blocks for the series that match matchers, with the labels to be removed. It keeps nothing of what it is given.
func (r *Recorder) Note(blocks []*catalog.Block, matchers []*labels.Matcher, without []string) {
	if len(matchers) == 0 {
		return
	}
	var buf [512]byte
	key := appendKey(buf[:0], matchers, without)
	now := time.Now().UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range blocks {
		r.note(b.ID, key, now, 1)
	}
}

// note counts n requests for a set. mu is held.
func (r *Recorder) note(id ulid.ULID, key []byte, now int64, n float64) {
	r.changes++
	b := r.blocks[id]
	if b == nil {
		if len(r.blocks) >= maxBlocks {
			r.trimBlocks()
		}
		b = &blockUse{sets: map[*text]setUse{}}
		r.blocks[id] = b
	}
	b.last = max(b.last, now)
	if len(key) > maxSetBytes {
		r.tooLong++
		return
	}
	if t := r.texts[string(key)]; t != nil {
		if u, ok := b.sets[t]; ok {
			b.sets[t] = u.add(now, n)
			return
		}
	}
	// Room is made before, so that a new set always gets in: it may be what is asked from now on.
	if len(b.sets) >= maxSetsPerBlock {
		r.trimSets(now, id)
	}
	if r.sets >= maxSets {
		r.trimSets(now, r.ids()...)
	}
	t := r.texts[string(key)]
	for t == nil && r.textBytes+int64(len(key)) > maxTextBytes {
		r.trimSets(now, r.ids()...)
	}
	if t == nil {
		t = &text{key: string(key)}
		r.texts[t.key] = t
		r.textBytes += int64(len(key))
	}
	t.uses++
	r.sets++
	b.sets[t] = setUse{}.add(now, n)
}

func (r *Recorder) ids() []ulid.ULID {
	ids := make([]ulid.ULID, 0, len(r.blocks))
	for id := range r.blocks {
		ids = append(ids, id)
	}
	return ids
}

// trimSets removes the least used eighth of the sets of some blocks. mu is held.
func (r *Recorder) trimSets(now int64, ids ...ulid.ULID) {
	type entry struct {
		b     *blockUse
		t     *text
		score float64
	}
	var all []entry
	for _, id := range ids {
		b := r.blocks[id]
		for t, u := range b.sets {
			all = append(all, entry{b, t, u.at(now)})
		}
	}
	slices.SortFunc(all, func(a, b entry) int { return cmp.Compare(a.score, b.score) })
	for _, e := range all[:(len(all)+trimShare-1)/trimShare] {
		r.forgotten++
		r.dropSet(e.b, e.t)
	}
}

// trimBlocks removes the eighth of the blocks that were not used for the longest time. mu is held.
func (r *Recorder) trimBlocks() {
	ids := r.ids()
	slices.SortFunc(ids, func(a, b ulid.ULID) int { return cmp.Compare(r.blocks[a].last, r.blocks[b].last) })
	for _, id := range ids[:(len(ids)+trimShare-1)/trimShare] {
		r.forgotten += int64(len(r.blocks[id].sets))
		r.dropBlock(id)
	}
}

// dropSet removes a set of a block. mu is held.
func (r *Recorder) dropSet(b *blockUse, t *text) {
	delete(b.sets, t)
	r.sets--
	if t.uses--; t.uses == 0 {
		delete(r.texts, t.key)
		r.textBytes -= int64(len(t.key))
	}
}

// dropBlock removes a block. mu is held.
func (r *Recorder) dropBlock(id ulid.ULID) {
	b := r.blocks[id]
	for t := range b.sets {
		r.dropSet(b, t)
	}
	delete(r.blocks, id)
}

// Forget removes the blocks that keep does not want.
func (r *Recorder) Forget(keep func(ulid.ULID) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.blocks {
		if !keep(id) {
			r.dropBlock(id)
			r.changes++
		}
	}
}

// hotSet is a set that is worth replaying for a block.
type hotSet struct {
	block ulid.ULID
	key   string
	score float64
}

// hot returns the hot sets of the blocks that want takes, and when those blocks were last used, in Unix milliseconds.
func (r *Recorder) hot(want func(ulid.ULID) bool) (sets []hotSet, used map[ulid.ULID]int64) {
	now := time.Now().UnixMilli()
	used = map[ulid.ULID]int64{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, b := range r.blocks {
		if !want(id) {
			continue
		}
		used[id] = b.last
		for t, u := range b.sets {
			if score := u.at(now); score >= hotScore {
				sets = append(sets, hotSet{id, t.key, score})
			}
		}
	}
	return sets, used
}

// inherit counts for a block what was asked of those that it replaces.
func (r *Recorder) inherit(id ulid.ULID, sets []hotSet) {
	now := time.Now().UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range sets {
		r.note(id, []byte(s.key), now, s.score)
	}
}

// recorded is how much a Recorder holds and has refused.
type recorded struct {
	blocks, sets       int
	textBytes          int64
	changes            uint64
	tooLong, forgotten int64
}

func (r *Recorder) stats() recorded {
	r.mu.Lock()
	defer r.mu.Unlock()
	return recorded{len(r.blocks), r.sets, r.textBytes, r.changes, r.tooLong, r.forgotten}
}
