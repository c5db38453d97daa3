package warm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/internal/localfs"
	"larder/internal/sealed"
)

const (
	snapshotName = "warm.snapshot"
	// maxSnapshotBytes is more than twice what a full Recorder comes to: half of its marks, as many
	// texts, and 24 bytes a block.
	maxSnapshotBytes = 8 << 20
	// scoreUnit is the resolution in which scores are written.
	scoreUnit = 1.0 / 1024
)

// snapshotFormat is the file's. Its version changes with the layout; a file of another version is
// not read.
func snapshotFormat() sealed.Format { return sealed.Format{Kind: "warm", Version: 2} }

var errPayload = errors.New("the content is not one of this version")

// encode returns what the recorder holds as the payload of a snapshot, and the count of changes up
// to which it does.
//
// It is the blocks by their places, for each how long ago it was last used, one more than that in
// milliseconds, its score and its ULID, or 0 for a place without a block; then for each set its
// text after its length, its score, and as many marks as it has. Ages, because the time that no
// process runs does not count: what was asked before a week-end is what will be asked after it.
func (r *Recorder) encode() (payload []byte, changes uint64) {
	now := time.Now().UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.weight(now)
	score := func(s float64) uint64 { return uint64(min(s/w, maxScore) / scoreUnit) }
	p := binary.AppendUvarint(nil, uint64(len(r.places)))
	for i := range r.places {
		b := &r.places[i]
		if b.last == 0 {
			p = append(p, 0)
			continue
		}
		p = binary.AppendUvarint(p, uint64(max(now-b.last, 0))+1)
		p = binary.AppendUvarint(p, score(b.score))
		p = append(p, b.id[:]...)
	}
	p = binary.AppendUvarint(p, uint64(len(r.sets)))
	for _, s := range r.sets {
		p = binary.AppendUvarint(p, uint64(len(s.key)))
		p = append(p, s.key...)
		p = binary.AppendUvarint(p, score(s.score))
		p = binary.AppendUvarint(p, uint64(len(s.marks)))
		for _, m := range s.marks {
			p = binary.LittleEndian.AppendUint64(p, m.young|m.old)
		}
	}
	return p, r.changes
}

// snapshot is what a file holds.
type snapshot struct {
	blocks []savedBlock // by place
	sets   []savedSet
}

// savedSet is a set in a snapshot.
type savedSet struct {
	key   string
	score float64
	marks []uint64
}

// savedBlock is a place in a snapshot.
type savedBlock struct {
	id    ulid.ULID
	taken bool // by a block
	score float64
	age   int64
}

// decode returns what a payload holds. It takes what encode writes, and of everything else nothing.
func decode(payload []byte) (s snapshot, ok bool) {
	d := decoder{data: payload}
	n := d.uvarint()
	if n > maxBlocks {
		return snapshot{}, false
	}
	for range n {
		var b savedBlock
		if age := d.age(); age > 0 {
			b.taken, b.age, b.score = true, age-1, d.score()
			copy(b.id[:], d.take(uint64(len(b.id))))
		}
		if d.bad {
			return snapshot{}, false
		}
		s.blocks = append(s.blocks, b)
	}
	if n = d.uvarint(); n > maxSets {
		return snapshot{}, false
	}
	for range n {
		x := savedSet{key: string(d.bytes())}
		if _, _, err := parseKey(x.key); err != nil || len(x.key) > maxSetBytes {
			return snapshot{}, false
		}
		x.score = d.score()
		marks := d.uvarint()
		if marks > maxBlocks/markBlocks {
			return snapshot{}, false
		}
		for range marks {
			b := d.take(8)
			if d.bad {
				return snapshot{}, false
			}
			x.marks = append(x.marks, binary.LittleEndian.Uint64(b))
		}
		s.sets = append(s.sets, x)
	}
	return s, !d.bad && len(d.data) == 0
}

// score returns a score that a recorder could have.
func (d *decoder) score() float64 {
	v := float64(d.uvarint()) * scoreUnit
	if v > maxScore {
		d.bad = true
		return 0
	}
	return v
}

// age returns a number of milliseconds, at most some centuries.
func (d *decoder) age() int64 {
	v := d.uvarint()
	if v > math.MaxInt64>>20 {
		d.bad = true
		return 0
	}
	return int64(v)
}

// merge adds what a snapshot holds to what has been noted since. Its marks count as old: who does
// not ask again is forgotten with the next ageing.
func (r *Recorder) merge(saved snapshot) {
	now := time.Now().UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.weight(now)
	r.changes++
	for _, b := range saved.blocks {
		if !b.taken {
			continue
		}
		if at, ok := r.place(b.id, now); ok {
			r.use(at, max(now-b.age, 1), b.score*w)
		}
	}
	var places []int32
	for _, x := range saved.sets {
		places = places[:0]
		for i, marks := range x.marks {
			for ; marks != 0; marks &= marks - 1 {
				from := i*markBlocks + bits.TrailingZeros64(marks)
				if from >= len(saved.blocks) || !saved.blocks[from].taken {
					continue
				}
				if at, ok := r.blocks[saved.blocks[from].id]; ok {
					places = append(places, at)
				}
			}
		}
		s := r.set([]byte(x.key), now)
		s.score += x.score * w
		r.extend(s, places)
		for _, at := range places {
			s.marks[at/markBlocks].old |= 1 << (at % markBlocks)
		}
	}
}

// readSnapshot reads the file in dir, fs.ErrNotExist if there is none.
func readSnapshot(dir localfs.Dir) (snapshot, error) {
	// A process that was killed while it wrote the file has left what it had of it.
	if err := sealed.RemoveTemps(dir, snapshotName); err != nil {
		return snapshot{}, err
	}
	payload, err := snapshotFormat().Read(dir, snapshotName, maxSnapshotBytes)
	if err != nil {
		return snapshot{}, err
	}
	saved, ok := decode(payload)
	if !ok {
		return snapshot{}, fmt.Errorf(
			"%s: %w: %w", dir.Path(snapshotName), sealed.ErrDamaged, errPayload,
		)
	}
	return saved, nil
}

// writeSnapshot replaces the file in dir in one step. It is for its owner alone: matchers say what
// people ask for.
func writeSnapshot(dir localfs.Dir, payload []byte) error {
	return snapshotFormat().Write(dir, snapshotName, payload, true)
}
