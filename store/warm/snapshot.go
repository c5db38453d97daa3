package warm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"
)

const (
	snapshotName = "warm.snapshot"
	// snapshotVersion changes with the layout. A file of another version is not read.
	snapshotVersion = 1
	// maxSnapshotBytes is twice what a full Recorder comes to.
	maxSnapshotBytes = 4 << 20
	// scoreUnit is the resolution in which scores are written.
	scoreUnit = 1.0 / 1024
)

var errDamaged = errors.New("damaged")

// firstLine is what the first line of a file must be for the payload that follows it.
func firstLine(version int, payload []byte) string {
	return fmt.Sprintf("larder-warm %d %d %08x\n", version, len(payload), crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)))
}

// encode returns a snapshot of what the recorder holds, and the count of changes up to which it does.
//
// The payload: the texts of the sets, each after its length; then for each block its ULID, its age, and for each of its sets the place of the text, the score
// and its age. Ages are in milliseconds, so that the time that no process runs does not count: what was asked before a week-end is what
// will be asked after it.
func (r *Recorder) encode() (file []byte, changes uint64) {
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
	return append([]byte(firstLine(snapshotVersion, p)), p...), r.changes
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

// decode returns what a file holds. It takes what encode writes, and of everything else nothing.
func decode(file []byte) ([]savedBlock, error) {
	line, payload, ok := bytes.Cut(file, []byte("\n"))
	if !ok {
		return nil, fmt.Errorf("%w: no first line", errDamaged)
	}
	var version int
	if _, err := fmt.Sscanf(string(line[:min(len(line), 80)]), "larder-warm %d ", &version); err == nil && version != snapshotVersion {
		return nil, fmt.Errorf("version %d, this is version %d", version, snapshotVersion)
	}
	if want := firstLine(snapshotVersion, payload); string(line)+"\n" != want {
		return nil, fmt.Errorf("%w: first line is %.80q, the content asks for %q", errDamaged, line, want)
	}
	blocks, ok := decodePayload(payload)
	if !ok {
		return nil, fmt.Errorf("%w: the content is not one of version %d", errDamaged, snapshotVersion)
	}
	return blocks, nil
}

func decodePayload(payload []byte) (blocks []savedBlock, ok bool) {
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
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSnapshotBytes+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxSnapshotBytes {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", path, errDamaged, maxSnapshotBytes)
	}
	blocks, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return blocks, nil
}

// writeSnapshot replaces the file in dir in one step. step is called before each part of it that a crash may follow; nil is nothing.
func writeSnapshot(dir string, file []byte, step func(name string) error) (err error) {
	at := func(name string) error {
		if step == nil {
			return nil
		}
		return step(name)
	}
	path := filepath.Join(dir, snapshotName)
	// One name: a process has its data directory to itself, and what one that was killed has left is written over.
	// For its owner alone, as the catalog: matchers say what people ask for.
	temp := path + ".tmp"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	half := len(file) / 2
	for _, part := range [][]byte{file[:half], file[half:]} {
		if err = at("write"); err == nil {
			_, err = f.Write(part)
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if err = at("sync"); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = at("rename"); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return err
	}
	if err = at("sync directory"); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// snapshotAbsent reports whether an error of readSnapshot only says that there is none.
func snapshotAbsent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
