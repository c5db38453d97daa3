package warm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/internal/sealed"
)

const (
	snapshotName = "warm.snapshot"
	// maxSnapshotBytes is twice what a full Recorder comes to.
	maxSnapshotBytes = 4 << 20
	// scoreUnit is the resolution in which scores are written.
	scoreUnit = 1.0 / 1024
)

// snapshotFormat is the file's. Its version changes with the layout; a file of another version is not read.
func snapshotFormat() sealed.Format { return sealed.Format{Kind: "warm", Version: 1} }

var errPayload = errors.New("the content is not one of this version")

// encode returns what the recorder holds as the payload of a snapshot, and the count of changes up to which it does.
//
// It is the texts of the sets, each after its length; then for each block its ULID, its age, and for each of its sets the place of the text, the score
// and its age. Ages are in milliseconds, so that the time that no process runs does not count: what was asked before a week-end is what
// will be asked after it.
func (r *Recorder) encode() (payload []byte, changes uint64) {
	now := time.Now().UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	age := func(last int64) uint64 { return uint64(max(now-last, 0)) }
	places := make(map[*text]uint64, len(r.texts))
	p := binary.AppendUvarint(nil, uint64(len(r.texts)))
	for _, t := range r.texts {
		places[t] = uint64(len(places))
		p = binary.AppendUvarint(p, uint64(len(t.key)))
		p = append(p, t.key...)
	}
	p = binary.AppendUvarint(p, uint64(len(r.blocks)))
	for id, b := range r.blocks {
		p = append(p, id[:]...)
		p = binary.AppendUvarint(p, age(b.last))
		p = binary.AppendUvarint(p, uint64(len(b.sets)))
		for t, u := range b.sets {
			p = binary.AppendUvarint(p, places[t])
			p = binary.AppendUvarint(p, uint64(u.score/scoreUnit))
			p = binary.AppendUvarint(p, age(u.last))
		}
	}
	return p, r.changes
}

// savedSet is a set of a block in a snapshot.
type savedSet struct {
	key   string
	score float64
	age   int64
}

type savedBlock struct {
	id   ulid.ULID
	age  int64
	sets []savedSet
}

// decode returns what a payload holds. It takes what encode writes, and of everything else nothing.
func decode(payload []byte) (blocks []savedBlock, ok bool) {
	d := decoder{data: payload}
	var texts []string
	n := d.uvarint()
	if n > maxSets {
		return nil, false
	}
	for range n {
		key := string(d.bytes())
		if _, _, err := parseKey(key); err != nil || len(key) > maxSetBytes {
			return nil, false
		}
		texts = append(texts, key)
	}
	if n = d.uvarint(); n > maxBlocks {
		return nil, false
	}
	total := uint64(0)
	for range n {
		var b savedBlock
		copy(b.id[:], d.take(uint64(len(b.id))))
		b.age = d.age()
		sets := d.uvarint()
		if total += sets; sets > maxSetsPerBlock || total > maxSets {
			return nil, false
		}
		for range sets {
			at, score, age := d.uvarint(), d.uvarint(), d.age()
			if d.bad || at >= uint64(len(texts)) || float64(score)*scoreUnit > maxScore {
				return nil, false
			}
			b.sets = append(b.sets, savedSet{texts[at], float64(score) * scoreUnit, age})
		}
		blocks = append(blocks, b)
	}
	return blocks, !d.bad && len(d.data) == 0
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

// merge adds what a snapshot holds to what has been noted since.
func (r *Recorder) merge(blocks []savedBlock) {
	now := time.Now().UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range blocks {
		for _, s := range b.sets {
			r.note(b.id, []byte(s.key), now-s.age, s.score)
		}
		if len(b.sets) == 0 {
			r.touch(b.id, now-b.age)
		}
	}
}

// touch notes that a block was used. mu is held.
func (r *Recorder) touch(id ulid.ULID, at int64) {
	if b := r.blocks[id]; b != nil {
		b.last = max(b.last, at)
	} else if len(r.blocks) < maxBlocks {
		r.blocks[id] = &blockUse{last: at, sets: map[*text]setUse{}}
	}
}

// readSnapshot reads the file in dir, fs.ErrNotExist if there is none.
func readSnapshot(dir string) ([]savedBlock, error) {
	path := filepath.Join(dir, snapshotName)
	// A process that was killed while it wrote the file has left what it had of it.
	if err := sealed.RemoveTemps(path); err != nil {
		return nil, err
	}
	payload, err := snapshotFormat().Read(path, maxSnapshotBytes)
	if err != nil {
		return nil, err
	}
	blocks, ok := decode(payload)
	if !ok {
		return nil, fmt.Errorf("%s: %w: %w", path, sealed.ErrDamaged, errPayload)
	}
	return blocks, nil
}

// writeSnapshot replaces the file in dir in one step. It is for its owner alone: matchers say what people ask for.
func writeSnapshot(dir string, payload []byte) error {
	return snapshotFormat().Write(filepath.Join(dir, snapshotName), payload, true)
}
