package irregular

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"larder/internal/localfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func know(t *testing.T, b *Blocks, id byte, content uint64, want string) {
	t.Helper()
	if what, ok := b.What(ulid.ULID{id}, content); what != want || ok != (want != "") {
		t.Errorf("block %d, content %d: %q, %v, want %q", id, content, what, ok, want)
	}
}

func count(t *testing.T, reg *prometheus.Registry) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "larder_blocks_irregular" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("no metric")
	return 0
}

// TestFindingsSurviveARestart: a finding belongs to one content of a block, the first one stays,
// and a block that is no longer served is forgotten, on disk too.
func TestFindingsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	open := func() (*Blocks, *prometheus.Registry) {
		reg := prometheus.NewRegistry()
		return Open(Options{Dir: localfs.At(dir), Registerer: reg}), reg
	}
	b, _ := open()
	b.Note(ulid.ULID{1}, 7, "first")
	b.Note(ulid.ULID{1}, 7, "second")
	b.Note(ulid.ULID{2}, 7, strings.Repeat("long", 1000))
	b.Note(ulid.ULID{3}, 7, "\xff")
	b.Close()

	b, reg := open()
	know(t, b, 1, 7, "first")
	know(t, b, 1, 8, "")
	know(t, b, 2, 7, strings.Repeat("long", maxWhat/4))
	know(t, b, 3, 7, "\ufffd")
	if n := count(t, reg); n != 3 {
		t.Errorf("%v blocks are counted", n)
	}
	b.Retain(func(id ulid.ULID, content uint64) bool { return id == ulid.ULID{1} && content == 7 })
	b.Close()

	b, reg = open()
	defer b.Close()
	know(t, b, 1, 7, "first")
	know(t, b, 2, 7, "")
	if n := count(t, reg); n != 1 {
		t.Errorf("%v blocks are counted", n)
	}
}

// TestDamagedFile: a file with any byte changed is ignored, and the finding can be recorded again.
func TestDamagedFile(t *testing.T) {
	dir := t.TempDir()
	b := Open(Options{Dir: localfs.At(dir)})
	b.Note(ulid.ULID{1}, 7, "found")
	b.Close()
	path := filepath.Join(dir, fileName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 4
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		b := Open(Options{Dir: localfs.At(dir)})
		know(t, b, 1, 7, "")
		b.Close()
	}
	b = Open(Options{Dir: localfs.At(dir)})
	b.Note(ulid.ULID{1}, 7, "again")
	b.Close()
	b = Open(Options{Dir: localfs.At(dir)})
	defer b.Close()
	know(t, b, 1, 7, "again")
}

// TestUnwritableDirectory: a finding that cannot be saved is known as long as the process runs, and
// the failure is logged.
func TestUnwritableDirectory(t *testing.T) {
	var log bytes.Buffer
	b := Open(Options{
		Dir:     localfs.At(t.TempDir()),
		LockDir: func() error { return errors.New("locked by another process") },
		Logger:  slog.New(slog.NewTextHandler(&log, nil)),
	})
	b.Note(ulid.ULID{1}, 7, "found")
	know(t, b, 1, 7, "found")
	b.Close()
	if !strings.Contains(log.String(), "locked by another process") {
		t.Errorf("the log lacks the reason:\n%s", log.String())
	}
}

// TestFindingsAreBounded: a bucket with only irregular blocks does not make the file larger than
// its bound.
func TestFindingsAreBounded(t *testing.T) {
	b := Open(Options{})
	defer b.Close()
	id := ulid.ULID{}
	for n := range maxFindings + 10 {
		id[0], id[1], id[2] = byte(n>>16), byte(n>>8), byte(n)
		b.Note(id, 7, "found")
	}
	if n := b.count(); n != maxFindings {
		t.Errorf("%d findings, want %d", n, maxFindings)
	}
}
