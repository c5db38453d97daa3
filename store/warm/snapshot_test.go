package warm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"larder/store/catalog"
)

// hotOf is what a recorder would have replayed.
func hotOf(r *Recorder) map[ulid.ULID]map[string]float64 {
	sets, _ := r.hot(func(ulid.ULID) bool { return true })
	out := map[ulid.ULID]map[string]float64{}
	for _, s := range sets {
		if out[s.block] == nil {
			out[s.block] = map[string]float64{}
		}
		out[s.block][s.key] = s.score
	}
	return out
}

func filled(value string) *Recorder {
	r := NewRecorder()
	for range 3 {
		r.Note([]*catalog.Block{blockOf(1), blockOf(2)}, []*labels.Matcher{equal("a", value)}, []string{"replica"})
	}
	r.Note([]*catalog.Block{blockOf(2)}, []*labels.Matcher{equal("b", value)}, nil)
	return r
}

func TestSnapshotsAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := filled("x")
		file, _ := r.encode()
		if err := writeSnapshot(dir, file, nil); err != nil {
			t.Fatal(err)
		}
		want := hotOf(r)
		// However long no process runs, and twice: the file stays.
		time.Sleep(50 * halfLife)
		for range 2 {
			blocks, err := readSnapshot(dir)
			if err != nil {
				t.Fatal(err)
			}
			again := NewRecorder()
			again.merge(blocks)
			if diff := cmp.Diff(want, hotOf(again), cmpopts.EquateApprox(0, 0.01)); diff != "" {
				t.Error(diff)
			}
			// What was asked before it was read counts too.
			early := filled("x")
			early.merge(blocks)
			for id, sets := range hotOf(early) {
				for key, score := range sets {
					if w := 2 * want[id][key]; score < w-0.01 || score > w+0.01 {
						t.Errorf("block %s: score %v, want %v", id, score, w)
					}
				}
			}
			check(t, early)
		}
	})
}

// TestAKilledWriteLeavesAWholeFile: at whatever step a process ends that writes a snapshot, there is the old one or the new one.
func TestAKilledWriteLeavesAWholeFile(t *testing.T) {
	killed := errors.New("killed")
	old, _ := filled("old").encode()
	cur, _ := filled("new, and longer").encode()
	for stop := 0; ; stop++ {
		dir := t.TempDir()
		if err := writeSnapshot(dir, old, nil); err != nil {
			t.Fatal(err)
		}
		at := 0
		err := writeSnapshot(dir, cur, func(string) error {
			if at++; at > stop {
				return killed
			}
			return nil
		})
		got, rerr := os.ReadFile(filepath.Join(dir, snapshotName))
		if rerr != nil {
			t.Fatal(rerr)
		}
		if err == nil {
			if stop < 5 || !bytes.Equal(got, cur) {
				t.Errorf("after %d steps the new file is not there", stop)
			}
			break
		}
		if !errors.Is(err, killed) || !bytes.Equal(got, old) && !bytes.Equal(got, cur) {
			t.Errorf("killed at step %d: %v, a file of %d bytes", stop, err, len(got))
		}
		// The next process gets on with what is left.
		if err := writeSnapshot(dir, cur, nil); err != nil {
			t.Error(err)
		}
	}
}

func TestDamagedSnapshotsAreRefused(t *testing.T) {
	good, _ := filled("x").encode()
	_, payload, _ := bytes.Cut(good, []byte("\n"))
	if _, err := decode(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x20
		if _, err := decode(bad); err == nil {
			t.Errorf("byte %d changed: no error", i)
		}
		if _, err := decode(good[:i]); err == nil {
			t.Errorf("cut after %d bytes: no error", i)
		}
	}
	other := append([]byte(firstLine(snapshotVersion+1, payload)), payload...)
	if _, err := decode(other); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("another version: %v", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, snapshotName), make([]byte, maxSnapshotBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readSnapshot(dir); !errors.Is(err, errDamaged) {
		t.Errorf("a huge file: %v", err)
	}
}

// FuzzDecode: whatever stands behind a right checksum, what is taken can be recorded and written again.
func FuzzDecode(f *testing.F) {
	good, _ := filled("x").encode()
	_, payload, _ := bytes.Cut(good, []byte("\n"))
	f.Add(payload)
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, payload []byte) {
		blocks, err := decode(append([]byte(firstLine(snapshotVersion, payload)), payload...))
		if err != nil {
			return
		}
		r := NewRecorder()
		r.merge(blocks)
		check(t, r)
		file, _ := r.encode()
		if _, err := decode(file); err != nil {
			t.Error(err)
		}
	})
}
