package bucket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thanos-io/objstore"
)

// TestAPipeThatTakesAFilesPlace: one that is put there after larder has looked is not waited for.
func TestAPipeThatTakesAFilesPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openRegular("b/index", path); !errors.Is(err, fs.ErrNotExist) ||
		!strings.Contains(err.Error(), "b/index: a named pipe") {
		t.Errorf("file: got %v", err)
	}
	if _, err := openFolder(path); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("folder: got %v", err)
	}
}

// TestFileCallsThatHangAreBounded: calls that do not return keep their places, and no more than
// that. What comes after them is refused by name.
func TestFileCallsThatHangAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places = 3
		p := newFilePlaces("/mnt/bucket", places)
		hang := make(chan struct{})
		returned := make(chan error, places)
		for range places {
			go func() {
				returned <- p.do(t.Context(), "read", "a", func() error { <-hang; return nil })
			}()
		}
		synctest.Wait()
		refused := make(chan error, 100)
		for i := range cap(refused) {
			go func() {
				refused <- p.do(t.Context(), "read", fmt.Sprintf("object-%d", i), func() error {
					t.Error("it was called")
					return nil
				})
			}()
		}
		want := regexp.MustCompile(`read object-\d+: .* 3 calls for objects below /mnt/bucket`)
		for range cap(refused) {
			err := <-refused
			if !errors.Is(err, errFilesHang) || !want.MatchString(err.Error()) {
				t.Errorf("got %v", err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { refused <- p.do(ctx, "read", "b", func() error { return nil }) }()
		synctest.Wait()
		cancel()
		if err := <-refused; !errors.Is(err, context.Canceled) {
			t.Errorf("a read that was given up: %v", err)
		}
		close(hang)
		for range places {
			if err := <-returned; err != nil {
				t.Error(err)
			}
		}
		if err := p.do(t.Context(), "read", "c", func() error { return nil }); err != nil {
			t.Errorf("after they returned: %v", err)
		}
	})
}

// TestAnObjectThatHangsLeavesPlaces: at most a few calls for one object hang. Other objects are
// still read, and so is that object once the file system answers again.
func TestAnObjectThatHangsLeavesPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFilePlaces("/mnt/bucket", maxFileCalls)
		hang, returned := make(chan struct{}), make(chan error, maxHanging)
		for range maxHanging {
			go func() {
				returned <- p.do(t.Context(), "read", "a/index",
					func() error { <-hang; return nil })
			}()
		}
		time.Sleep(hangsAfter)
		for range 10 {
			err := p.do(t.Context(), "read", "a/index",
				func() error { t.Error("it was called"); return nil })
			if !errors.Is(err, errFilesHang) || !strings.Contains(err.Error(), "read a/index: ") {
				t.Errorf("got %v", err)
			}
		}
		read := func(object string) {
			t.Helper()
			if err := p.do(t.Context(), "read", object, func() error { return nil }); err != nil {
				t.Errorf("%s: %v", object, err)
			}
		}
		read("b/index")
		close(hang)
		for range maxHanging {
			if err := <-returned; err != nil {
				t.Error(err)
			}
		}
		read("a/index")
		if len(p.running) != 0 {
			t.Errorf("%v are counted as running", p.running)
		}
	})
}

// TestABodyEndsWithItsRead: what reads a body of a file after its caller gave up does not wait for
// the disk again.
func TestABodyEndsWithItsRead(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "o"), []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &fileBucket{root: dir, places: newFilePlaces(dir, 1)}
	for _, r := range []struct {
		off, length int64
		want        string
		size        int64
	}{{0, -1, "0123456789", 10}, {3, 4, "3456", 4}, {8, 10, "89", 2}, {20, 5, "", 0},
		{20, -1, "", 0}} {
		body, err := b.GetRange(t.Context(), "o", r.off, r.length)
		if err != nil {
			t.Fatal(err)
		}
		size, err := objstore.TryToGetSize(body)
		if err != nil || size != r.size {
			t.Errorf("%+v: size %d, %v", r, size, err)
		}
		got := new(strings.Builder)
		buf := make([]byte, 3)
		for n := 0; err == nil; {
			n, err = body.Read(buf)
			got.Write(buf[:n])
		}
		if got.String() != r.want || body.Close() != nil {
			t.Errorf("%+v: got %q, %v", r, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	body, err := b.Get(ctx, "o")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if n, err := body.Read(make([]byte, 5)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("got %d bytes, %v", n, err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
}

// TestLargeFoldersAreListedInParts: only a part of a very large folder is in memory at a time, and
// every entry is listed once.
func TestLargeFoldersAreListedInParts(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "block", "file")
	err := errors.Join(os.Mkdir(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	const n = maxEntries + 100
	want := map[string]bool{"block/file": true}
	for i := range n {
		name := fmt.Sprintf("block/%d", i)
		if err := os.Link(file, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		want[name] = true
	}
	b := &fileBucket{root: dir, places: newFilePlaces(dir, 1)}
	folder, err := b.openDir("block")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []int{maxEntries, 101} {
		entries, more, err := b.entries(folder, "block", objstore.IterParams{})
		if len(entries) != part || more != (part == maxEntries) || err != nil {
			t.Errorf("a part has %d entries, want %d; more %v, %v", len(entries), part, more, err)
		}
	}
	if err := folder.Close(); err != nil {
		t.Error(err)
	}
	err = b.Iter(t.Context(), "", func(name string) error {
		if !want[name] {
			t.Errorf("%s is listed twice, or should not be", name)
		}
		delete(want, name)
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil || len(want) != 0 {
		t.Errorf("%d are not listed, %v", len(want), err)
	}
}
