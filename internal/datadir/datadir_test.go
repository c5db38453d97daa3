package datadir

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"larder/internal/localfs"
)

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(localfs.At(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() }) // some tests have
	return d
}

func TestOneHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	first := open(t, path)
	if err := first.Hold(); err != nil || !first.Usable() {
		t.Fatalf("%v, usable %v", err, first.Usable())
	}
	if _, err := Open(localfs.At(path)); !errors.Is(err, ErrInUse) ||
		!strings.Contains(err.Error(), path) {
		t.Fatalf("the second: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Hold(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	open(t, path)
}

// TestRemoved: whoever removes the directory does not give it to a second process, unless that
// comes first.
func TestRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	first := open(t, path)
	remove := func() {
		t.Helper()
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	if err := first.Hold(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(localfs.At(path)); !errors.Is(err, ErrInUse) {
		t.Errorf("the second: %v", err)
	}

	remove()
	second := open(t, path)
	if err := first.Hold(); !errors.Is(err, ErrInUse) || first.Usable() {
		t.Errorf("the first holds what the second has: %v, usable %v", err, first.Usable())
	}
	if err := second.Hold(); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Hold(); err != nil {
		t.Errorf("when the second has gone: %v", err)
	}
}

// TestThereIsNoPlace: it is said once, and once more when there is one.
func TestThereIsNoPlace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	d := open(t, filepath.Join(file, "larder"))
	if d.Usable() {
		t.Error("a folder in a file is usable")
	}
	if err := d.Hold(); err == nil {
		t.Error("it is held")
	}
	var log strings.Builder
	d.Report(slog.New(slog.NewTextHandler(&log, nil)))
	for range 3 {
		_ = d.Hold() // as above
	}
	if got := log.String(); strings.Count(got, "\n") != 1 ||
		!strings.Contains(got, "cannot be used") ||
		!strings.Contains(got, "not a directory") {
		t.Errorf("logged %q", got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := d.Hold(); err != nil || !d.Usable() {
		t.Errorf("%v, usable %v", err, d.Usable())
	}
	if got := log.String(); strings.Count(got, "\n") != 2 ||
		!strings.Contains(got, "can be used again") {
		t.Errorf("logged %q", got)
	}
}
