package catalog

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/localfs"
)

// TestLateCopies: copies that are written late count as present, and are on disk after writeMetas,
// unless their block was removed meanwhile. Large ones are written at once.
func TestLateCopies(t *testing.T) {
	account := newDocuments(defaultDocumentBytes, prometheus.NewGauge(prometheus.GaugeOpts{}))
	s := newLocal(localfs.At(t.TempDir()), nil, account)
	if err := s.prepare(); err != nil {
		t.Fatal(err)
	}
	ids := []ulid.ULID{{1}, {2}, {3}}
	s.writeLate(true)
	for i, n := range []int{100, 200, maxLate + 1} {
		if err := s.putMeta(ids[i], make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	onDisk := func(want ...bool) {
		t.Helper()
		for i, id := range ids {
			_, err := metaFormat().Read(s.metaDir(), documentName(id), maxMetaSize)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if got := err == nil; got != want[i] {
				t.Errorf("the copy of block %d is on disk: %v, want %v", i, got, want[i])
			}
		}
	}
	onDisk(false, false, true)
	left, err := s.removeMetas(func(id ulid.ULID) bool { return id != ids[1] })
	if err != nil || len(left) != 3 {
		t.Errorf("%d copies are left, %v; want 3, of which one will not be written", len(left), err)
	}
	if data, err := s.document(ids[0]); err != nil || len(data) != 100 {
		t.Errorf("a document of %d bytes, %v", len(data), err)
	}
	if err := s.writeMetas(2); err != nil {
		t.Fatal(err)
	}
	onDisk(true, false, true)
	if s.unwrittenBytes != 0 || len(s.unwritten) != 0 || len(s.memory.m) != 0 {
		t.Errorf("%d bytes of %d copies are unwritten, %d in memory", s.unwrittenBytes,
			len(s.unwritten), len(s.memory.m))
	}
}
