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
	pagesName    = "warm.pages"
	// maxSnapshotBytes is more than twice the snapshot of a full Recorder: half of its marks, its
	// texts, and 24 bytes per block.
	maxSnapshotBytes = 8 << 20
	// scoreUnit is the resolution of saved scores.
	scoreUnit = 1.0 / 1024
)

// snapshotFormat is the format of the file. Its version changes with the layout. A file of another
// version is ignored.
func snapshotFormat() sealed.Format { return sealed.Format{Kind: "warm", Version: 2} }

// pagesFormat is the format of the file of the addresses of hot pages.
func pagesFormat() sealed.Format { return sealed.Format{Kind: "warm-pages", Version: 1} }

var errPayload = errors.New("content is not valid for its version")

// encode returns the payload of a snapshot with the blocks for which want returns true, and the
// number of changes that it includes. want may be nil, for all blocks.
//
// The payload has the number of places. A place is 0 if it is unused. Otherwise it has 1 plus the
// milliseconds since its last use, its score and the ULID. The number of sets follows. A set has
// the length and text of its key, its score, and the number and content of its marks. Numbers are
// uvarints, marks are 8 bytes each. Ages are stored instead of times, because the time in which no
// process runs does not count: the queries after a weekend are those from before.
func (r *Recorder) encode(want func(ulid.ULID) bool) (payload []byte, changes uint64) {
	now := time.Now().UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.weight(now)
	score := func(s float64) uint64 { return uint64(min(s/w, maxScore) / scoreUnit) }
	wanted := make([]uint64, len(r.places)/markBlocks+1)
	p := binary.AppendUvarint(nil, uint64(len(r.places)))
	for i := range r.places {
		b := &r.places[i]
		if b.last == 0 || want != nil && !want(b.id) {
			p = append(p, 0)
			continue
		}
		wanted[i/markBlocks] |= 1 << (i % markBlocks)
		p = binary.AppendUvarint(p, uint64(max(now-b.last, 0))+1)
		p = binary.AppendUvarint(p, score(b.score))
		p = append(p, b.id[:]...)
	}
	var sets []*set
	for _, s := range r.sets {
		if want == nil || s.marksAny(wanted) {
			sets = append(sets, s)
		}
	}
	p = binary.AppendUvarint(p, uint64(len(sets)))
	for _, s := range sets {
		p = binary.AppendUvarint(p, uint64(len(s.key)))
		p = append(p, s.key...)
		p = binary.AppendUvarint(p, score(s.score))
		p = binary.AppendUvarint(p, uint64(len(s.marks)))
		for i, m := range s.marks {
			p = binary.LittleEndian.AppendUint64(p, (m.young|m.old)&wanted[i])
		}
	}
	return p, r.changes
}

// marksAny reports whether a set was used on one of the places.
func (s *set) marksAny(places []uint64) bool {
	for i, m := range s.marks {
		if (m.young|m.old)&places[i] != 0 {
			return true
		}
	}
	return false
}

// snapshot is the decoded payload of a file.
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
	used  bool
	score float64
	age   int64
}

// decode decodes a payload. ok is false for a payload that encode cannot have written.
func decode(payload []byte) (s snapshot, ok bool) {
	d := decoder{data: payload}
	n := d.uvarint()
	if n > maxBlocks {
		return snapshot{}, false
	}
	for range n {
		var b savedBlock
		if age := d.age(); age > 0 {
			b.used, b.age, b.score = true, age-1, d.score()
			copy(b.id[:], d.next(uint64(len(b.id))))
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
			b := d.next(8)
			if d.bad {
				return snapshot{}, false
			}
			x.marks = append(x.marks, binary.LittleEndian.Uint64(b))
		}
		s.sets = append(s.sets, x)
	}
	return s, !d.bad && len(d.data) == 0
}

// score decodes a score of at most maxScore.
func (d *decoder) score() float64 {
	v := float64(d.uvarint()) * scoreUnit
	if v > maxScore {
		d.bad = true
		return 0
	}
	return v
}

// age decodes a number of milliseconds of at most some centuries.
func (d *decoder) age() int64 {
	v := d.uvarint()
	if v > math.MaxInt64>>20 {
		d.bad = true
		return 0
	}
	return int64(v)
}

// merge adds a snapshot to the recorder. The marks of the snapshot count as old: those that are not
// used again are removed when the marks age next.
func (r *Recorder) merge(saved snapshot) {
	now := time.Now().UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.weight(now)
	r.changes++
	for _, b := range saved.blocks {
		if !b.used {
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
				if from >= len(saved.blocks) || !saved.blocks[from].used {
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
	// A process that was killed while writing leaves a temporary file.
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

// writeSnapshot replaces the file in dir in one step. Only its owner can read it, because matchers
// show what users query.
func writeSnapshot(dir localfs.Dir, payload []byte) error {
	return snapshotFormat().Write(dir, snapshotName, payload, true)
}

// readHotPages reads the file of hot pages in dir, fs.ErrNotExist if there is none.
func readHotPages(dir localfs.Dir) ([]filePages, error) {
	if err := sealed.RemoveTemps(dir, pagesName); err != nil {
		return nil, err
	}
	payload, err := pagesFormat().Read(dir, pagesName, maxPagesBytes)
	if err != nil {
		return nil, err
	}
	pages, ok := decodePages(payload)
	if !ok {
		return nil, fmt.Errorf("%s: %w: %w", dir.Path(pagesName), sealed.ErrDamaged, errPayload)
	}
	return pages, nil
}

// writeHotPages replaces the file of hot pages in dir in one step.
func writeHotPages(dir localfs.Dir, payload []byte) error {
	return pagesFormat().Write(dir, pagesName, payload, true)
}
