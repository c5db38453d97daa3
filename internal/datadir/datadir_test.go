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
	t.Cleanup(func() { _ = d.Close() }) // some tests have closed it already
	return d
}

func TestOneProcessLocksTheDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	first := open(t, path)
	if err := first.Lock(); err != nil || !first.Usable() {
		t.Fatalf("first process: %v, usable %v", err, first.Usable())
	}
	if _, err := Open(localfs.At(path)); !errors.Is(err, ErrInUse) ||
		!strings.Contains(err.Error(), path) {
		t.Fatalf("second process: got %v, want ErrInUse with the path", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Lock(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Lock after Close: got %v, want ErrClosed", err)
	}
	open(t, path)
}

// TestRemovedDirectoryIsLockedAgain: after the directory was removed, the process that locks it
// first has it.
func TestRemovedDirectoryIsLockedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	first := open(t, path)
	remove := func() {
		t.Helper()
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	if err := first.Lock(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(localfs.At(path)); !errors.Is(err, ErrInUse) {
		t.Errorf("second process: got %v, want ErrInUse", err)
	}

	remove()
	second := open(t, path)
	if err := first.Lock(); !errors.Is(err, ErrInUse) || first.Usable() {
		t.Errorf("first process: got %v, usable %v; want ErrInUse", err, first.Usable())
	}
	if err := second.Lock(); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Lock(); err != nil {
		t.Errorf("first process, after the second closed: %v", err)
	}
}

// TestUnusableDirectoryIsLoggedOnce: it is logged once, and once more when it is usable again.
func TestUnusableDirectoryIsLoggedOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	d := open(t, filepath.Join(file, "larder"))
	if d.Usable() {
		t.Error("a directory below a file is usable")
	}
	if err := d.Lock(); err == nil {
		t.Error("a directory below a file was locked")
	}
	var log strings.Builder
	d.Report(slog.New(slog.NewTextHandler(&log, nil)))
	for range 3 {
		_ = d.Lock() // fails as above
	}
	if got := log.String(); strings.Count(got, "\n") != 1 ||
		!strings.Contains(got, "not usable") ||
		!strings.Contains(got, "not a directory") {
		t.Errorf("logged %q", got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := d.Lock(); err != nil || !d.Usable() {
		t.Errorf("after the file was removed: %v, usable %v", err, d.Usable())
	}
	if got := log.String(); strings.Count(got, "\n") != 2 ||
		!strings.Contains(got, "usable again") {
		t.Errorf("logged %q", got)
	}
}
