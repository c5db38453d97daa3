package warm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/localfs"
	"larder/internal/sealed"
	"larder/store/catalog"
)

// hotOf returns the sets of a recorder to replay.
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
		r.Note(
			[]*catalog.Block{blockOf(1), blockOf(2)}, []*labels.Matcher{equal("a", value)},
			[]string{"replica"},
		)
	}
	r.Note([]*catalog.Block{blockOf(2)}, []*labels.Matcher{equal("b", value)}, nil)
	return r
}

func TestSnapshotsAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := filled("x")
		payload, _ := r.encode(nil)
		if err := writeSnapshot(localfs.At(dir), payload); err != nil {
			t.Fatal(err)
		}
		want := hotOf(r)
		// After any downtime, and twice, because the file stays.
		time.Sleep(50 * halfLife)
		for range 2 {
			saved, err := readSnapshot(localfs.At(dir))
			if err != nil {
				t.Fatal(err)
			}
			again := NewRecorder()
			again.merge(saved)
			if diff := cmp.Diff(want, hotOf(again), cmpopts.EquateApprox(0, 0.01)); diff != "" {
				t.Error(diff)
			}
			// Requests before the snapshot was read count too.
			early := filled("x")
			early.merge(saved)
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

func TestDamagedSnapshotsAreRejected(t *testing.T) {
	dir := t.TempDir()
	payload, _ := filled("x").encode(nil)
	path := filepath.Join(dir, snapshotName)
	f := func(what string, file []byte, want error) {
		t.Helper()
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readSnapshot(localfs.At(dir)); (err != nil) != (want != nil) ||
			!errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	good := snapshotFormat().Seal(payload)
	f("whole", good, nil)
	f("cut off", good[:len(good)-1], sealed.ErrDamaged)
	f("a huge file", make([]byte, maxSnapshotBytes+1), sealed.ErrDamaged)
	// A payload with a right checksum may still be invalid.
	f("more of it", snapshotFormat().Seal(append(bytes.Clone(payload), 0)), errPayload)
	f("less of it", snapshotFormat().Seal(payload[:len(payload)-1]), errPayload)
	f("nothing", snapshotFormat().Seal(nil), errPayload)
	// The temporary file of a killed process is removed.
	if err := os.WriteFile(path+".tmp-1", good[:10], 0o600); err != nil {
		t.Fatal(err)
	}
	f("beside a half one", good, nil)
	if left, err := filepath.Glob(filepath.Join(dir, "*.tmp-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// FuzzDecode: any payload that decodes can be merged and encoded again.
func FuzzDecode(f *testing.F) {
	payload, _ := filled("x").encode(nil)
	f.Add(payload)
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, payload []byte) {
		saved, ok := decode(payload)
		if !ok {
			return
		}
		r := NewRecorder()
		r.merge(saved)
		check(t, r)
		again, _ := r.encode(nil)
		if _, ok := decode(again); !ok {
			t.Error("the encoded snapshot cannot be decoded")
		}
	})
}
