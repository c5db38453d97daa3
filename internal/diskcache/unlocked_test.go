package diskcache

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"larder/internal/disktest"
	"larder/internal/localfs"
)

// TestADirectoryOfAnotherProcess: a process that cannot lock the directory reads what is there. It
// changes and removes nothing: not a segment that the other process has just created, nor
// segments beyond its own size or while too little space is free.
func TestADirectoryOfAnotherProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := disktest.Tmpfs(t, 40<<20)
		open := func(size int64, lock error) *Cache {
			d := OpenDisk(DiskOptions{
				Dir: localfs.At(root, "disk"), Timeout: time.Minute, WriteRate: 1 << 40,
				LockDir: func() error { return lock },
			})
			c := d.Open(Options{Kind: "index", MaxBytes: size})
			t.Cleanup(func() { c.Close(); d.Close() })
			<-c.Loaded()
			return c
		}
		owner := open(32<<20, nil)
		fill(t, owner, 1, 0, 3000)
		written(owner)
		owner.Close()
		created := filepath.Join(root, "disk", "index", segmentName(1000))
		if err := os.WriteFile(created, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		free := disktest.Fill(t, root)
		before := namesOf(t, root)
		other := open(16<<20, errors.New("another process uses the directory"))
		if n := found(t, other, 1, 2900, 50); n != 50 {
			t.Errorf("found %d of 50 pages", n)
		}
		set(other, 2, 0, 100)
		written(other)
		time.Sleep(2 * checkEvery)
		synctest.Wait()
		other.Close()
		if after := namesOf(t, root); len(after) != len(before) {
			t.Errorf("%d files became %d", len(before), len(after))
		}
		free()
		owner = open(32<<20, nil)
		if n := found(t, owner, 1, 0, 3000); n != 3000 {
			t.Errorf("the owner has %d of its 3000 pages", n)
		}
	})
}

func namesOf(t *testing.T, root string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, "disk", "index", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}
