package diskcache

import (
	"path/filepath"
	"testing"

	"larder/internal/disktest"
	"larder/internal/localfs"
)

// TestFreeSpaceAtTheStart: a process that starts on a file system that others have filled removes
// its oldest pages, and keeps the newest ones.
func TestFreeSpaceAtTheStart(t *testing.T) {
	root := disktest.Tmpfs(t, 16<<20)
	start := func() *Cache {
		d := OpenDisk(DiskOptions{Dir: localfs.At(root, "disk")})
		c := d.Open(Options{Kind: "index"})
		t.Cleanup(func() { c.Close(); d.Close() })
		<-c.Loaded()
		return c
	}
	c := start()
	fill(t, c, 1, 0, 1000)
	written(c)
	c.Close()
	dir := filepath.Join(root, "disk")
	before := filesSize(t, dir)
	free := disktest.Fill(t, root)
	c = start()
	if gone := before - filesSize(t, dir); gone < 16<<20/maxMinFreeShare || gone > 4<<20 {
		t.Errorf("%d bytes were removed", gone)
	}
	if n := found(t, c, 1, 0, 50); n != 0 {
		t.Errorf("%d of the oldest pages are there", n)
	}
	if n := found(t, c, 1, 950, 50); n != 50 {
		t.Errorf("%d of the newest 50 pages are there", n)
	}
	free()
}
