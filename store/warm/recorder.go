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

// The bounds of a Recorder. It needs some 6 MB if all are reached.
const (
	maxBlocks    = 32 << 10
	maxSets      = 4096
	maxTextBytes = 1 << 20
	// maxMarkBytes bounds the marks of all sets: 4,096 sets of 2,048 blocks each, or 512 of 16,384.
	maxMarkBytes = 2 << 20
	// maxSetBytes is the longest key of a recorded set: regular expressions of some hundred
	// alternatives.
	maxSetBytes = 8 << 10
)

const (
	// halfLife is the time after which a request counts half.
	halfLife = 2 * time.Hour
	// hotScore is the minimum score for a replay: one request within the last half-life, or several
	// before.
	hotScore = 0.5
	// trimShare is the fraction that is evicted at once. Finding the least used entries is
	// expensive and pays for many new entries.
	trimShare = 8
	// trimBlocksEvery is the minimum time between evictions of blocks, because one request may use
	// more blocks than are recorded.
	trimBlocksEvery = time.Minute
	// maxHot bounds the pairs of a set and a block in a replay. It is more than a replay can
	// finish.
	maxHot = 1 << 17
)

// Recorder records which matcher sets were used on which blocks, how often and when last. It is
// bounded and evicts the least used. Its methods may be called from any goroutine.
//
// A set is stored once, with one bit for each block that it was used on. A request costs one lookup
// and one bit per block, whatever the size of the Recorder. It counts the uses of each set and of
// each block, not of each pair; the smaller count bounds that of the pair.
type Recorder struct {
	mu        sync.Mutex // guards following
	epoch     int64      // Unix milliseconds from which weights count
	blocks    map[ulid.ULID]int32
	places    []blockUse // blocks by place
	free      []int32    // unused places
	sets      map[string]*set
	textBytes int64 // of keys of sets
	markBytes int64 // of marks of sets
	scratch   []int32
	trimmed   int64 // Unix milliseconds of the last eviction of blocks
	changes   uint64
	tooLong   int64
	forgotten int64 // evicted sets
}

// set is a matcher set.
type set struct {
	key   string // by appendKey
	score float64
	marks []mark
	aged  int64 // Unix milliseconds when marks last aged
}

// mark has one bit for each of 64 places. young are the blocks that a set was used on since its
// marks last aged, old those of the half-life before.
type mark struct{ young, old uint64 }

const (
	markBlocks = 64
	markSize   = 16 // bytes of a mark
)

type blockUse struct {
	id    ulid.ULID
	score float64
	last  int64 // Unix milliseconds; 0: the place is unused
}

// maxScore is higher than any score from requests.
const maxScore = 1e12

// maxHalfLives bounds the growth of weights: 2^maxHalfLives * maxScore is a finite float64.
const maxHalfLives = 500

// NewRecorder returns an empty recorder.
func NewRecorder() *Recorder {
	return &Recorder{blocks: map[ulid.ULID]int32{}, sets: map[string]*set{}}
}

// weight returns the weight of a request at the given time. It doubles after every half-life, so
// that earlier requests count half without an update of their scores. A score divided by the weight
// is a number of requests. mu must be held.
func (r *Recorder) weight(now int64) float64 {
	if r.epoch == 0 {
		r.epoch = now
	}
	// The clock may have been set back.
	halfLives := float64(max(now-r.epoch, 0)) / float64(halfLife.Milliseconds())
	if halfLives > maxHalfLives {
		for _, s := range r.sets {
			s.score *= math.Exp2(-halfLives)
		}
		for i := range r.places {
			r.places[i].score *= math.Exp2(-halfLives)
		}
		r.epoch, halfLives = now, 0
	}
	return math.Exp2(halfLives)
}

// Note records a request for the series of blocks that match matchers, without the given labels. It
// does not retain its arguments.
func (r *Recorder) Note(blocks []*catalog.Block, matchers []*labels.Matcher, without []string) {
	if len(matchers) == 0 || len(blocks) == 0 {
		return
	}
	var buf [512]byte
	key := appendKey(buf[:0], matchers, without)
	now := time.Now().UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.weight(now)
	r.changes++
	places := r.scratch[:0]
	for _, b := range blocks {
		if at, ok := r.place(b.ID, now); ok {
			r.use(at, now, w)
			places = append(places, at)
		}
	}
	r.scratch = places
	if s := r.set(key, now); s != nil {
		s.score += w
		r.age(s, now)
		r.extend(s, places)
		for _, at := range places {
			s.marks[at/markBlocks].young |= 1 << (at % markBlocks)
		}
	}
}

// place returns the place of a block, and assigns one if the block has none. mu must be held.
func (r *Recorder) place(id ulid.ULID, now int64) (at int32, ok bool) {
	if at, ok = r.blocks[id]; ok {
		return at, true
	}
	if len(r.blocks) >= maxBlocks && !r.trimBlocks(now) {
		return 0, false
	}
	if n := len(r.free); n > 0 {
		at, r.free = r.free[n-1], r.free[:n-1]
	} else {
		at = int32(len(r.places))
		r.places = append(r.places, blockUse{})
	}
	r.places[at] = blockUse{id: id, last: 1}
	r.blocks[id] = at
	return at, true
}

// use counts requests of the given weight for the block at a place. mu must be held.
func (r *Recorder) use(at int32, now int64, weight float64) {
	b := &r.places[at]
	b.last, b.score = max(b.last, now), b.score+weight
}

// set returns the set of a key, and creates it if it is new; nil if the key is too long. mu must be
// held.
func (r *Recorder) set(key []byte, now int64) *set {
	if s := r.sets[string(key)]; s != nil {
		return s
	}
	if len(key) > maxSetBytes {
		r.tooLong++
		return nil
	}
	// Evict first, so that a new set is always recorded: it may be used often from now on.
	for len(r.sets) >= maxSets || r.textBytes+int64(len(key)) > maxTextBytes {
		r.trimSets(nil)
	}
	s := &set{key: string(key), aged: now}
	r.sets[s.key] = s
	r.textBytes += int64(len(key))
	return s
}

// age ages the marks of a set once per half-life. mu must be held.
func (r *Recorder) age(s *set, now int64) {
	if now-s.aged < halfLife.Milliseconds() {
		return
	}
	s.aged = now
	for i, m := range s.marks {
		s.marks[i] = mark{old: m.young}
	}
}

// extend grows the marks of a set to cover the given places. mu must be held.
func (r *Recorder) extend(s *set, places []int32) {
	n := 0
	for _, at := range places {
		n = max(n, int(at)/markBlocks+1)
	}
	more := int64(n-len(s.marks)) * markSize
	if more <= 0 {
		return
	}
	for r.markBytes+more > maxMarkBytes && len(r.sets) > 1 {
		r.trimSets(s)
	}
	marks := make([]mark, n)
	copy(marks, s.marks)
	s.marks = marks
	r.markBytes += more
}

// trimSets evicts the least used eighth of the sets, but not keep. mu must be held.
func (r *Recorder) trimSets(keep *set) {
	all := make([]*set, 0, len(r.sets))
	for _, s := range r.sets {
		if s != keep {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *set) int { return cmp.Compare(a.score, b.score) })
	for _, s := range all[:(len(all)+trimShare-1)/trimShare] {
		r.forgotten++
		r.dropSet(s)
	}
}

// dropSet removes a set. mu must be held.
func (r *Recorder) dropSet(s *set) {
	delete(r.sets, s.key)
	r.textBytes -= int64(len(s.key))
	r.markBytes -= int64(len(s.marks)) * markSize
}

// trimBlocks evicts the least recently used eighth of the blocks, unless the last eviction was
// recent. It evicts no block used at the time now, because the current request may have its place.
// mu must be held.
func (r *Recorder) trimBlocks(now int64) bool {
	if now-r.trimmed < trimBlocksEvery.Milliseconds() {
		return false
	}
	r.trimmed = now
	places := make([]int32, 0, len(r.blocks))
	for _, at := range r.blocks {
		if r.places[at].last < now {
			places = append(places, at)
		}
	}
	slices.SortFunc(
		places, func(a, b int32) int { return cmp.Compare(r.places[a].last, r.places[b].last) },
	)
	r.dropBlocks(places[:(len(places)+trimShare-1)/trimShare])
	return len(places) > 0
}

// dropBlocks removes the blocks at the given places, and sets without other blocks. mu must be
// held.
func (r *Recorder) dropBlocks(places []int32) {
	if len(places) == 0 {
		return
	}
	gone := make([]uint64, len(r.places)/markBlocks+1)
	for _, at := range places {
		gone[at/markBlocks] |= 1 << (at % markBlocks)
		delete(r.blocks, r.places[at].id)
		r.places[at] = blockUse{}
	}
	r.free = append(r.free, places...)
	for _, s := range r.sets {
		left := uint64(0)
		for i := range s.marks {
			m := &s.marks[i]
			m.young &^= gone[i]
			m.old &^= gone[i]
			left |= m.young | m.old
		}
		if left == 0 {
			r.dropSet(s)
		}
	}
}

// Forget removes the blocks for which keep returns false.
func (r *Recorder) Forget(keep func(ulid.ULID) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var gone []int32
	for id, at := range r.blocks {
		if !keep(id) {
			gone = append(gone, at)
		}
	}
	r.changes += uint64(len(gone))
	r.dropBlocks(gone)
}

// Recent returns when blocks were last used, if after since.
func (r *Recorder) Recent(since time.Time) map[ulid.ULID]time.Time {
	used := map[ulid.ULID]time.Time{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, at := range r.blocks {
		if last := time.UnixMilli(r.places[at].last); last.After(since) {
			used[id] = last
		}
	}
	return used
}

// recorded are statistics of a Recorder.
type recorded struct {
	blocks, sets       int
	bytes              int64 // of sets: texts and marks
	changes            uint64
	tooLong, forgotten int64
}

func (r *Recorder) stats() recorded {
	r.mu.Lock()
	defer r.mu.Unlock()
	return recorded{
		len(r.blocks),
		len(r.sets),
		r.textBytes + r.markBytes,
		r.changes,
		r.tooLong,
		r.forgotten,
	}
}
