package diskcache

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"larder/internal/bucket/cost"
	"larder/internal/bytecache"
	"larder/internal/disktest"
	"larder/internal/localfs"
)

// faults make the reads of a disk fail, or take long, and its writes fail.
type faults struct {
	mu    sync.Mutex
	read  func() error // before each read; nil: none
	write error        // of each write; nil: none
}

func (f *faults) failWrites(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.write = err
}

func (f *faults) set(read func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.read = read
}

type faultyFile struct {
	file
	faults *faults
}

func (f faultyFile) ReadAt(b []byte, off int64) (int, error) {
	f.faults.mu.Lock()
	read := f.faults.read
	f.faults.mu.Unlock()
	if read != nil {
		if err := read(); err != nil {
			return 0, err
		}
	}
	return f.file.ReadAt(b, off)
}

func (f faultyFile) WriteAt(b []byte, off int64) (int, error) {
	f.faults.mu.Lock()
	err := f.faults.write
	f.faults.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return f.file.WriteAt(b, off)
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// count returns how many lines contain a text.
func (l *logBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// faultyDisk opens a cache with 100 pages of object 1 on a disk with faults.
func faultyDisk(t *testing.T, change ...func(*DiskOptions)) (*Cache, *faults, *logBuffer) {
	t.Helper()
	f, log := &faults{}, &logBuffer{}
	d := openDisk(t, t.TempDir(), func(o *DiskOptions) {
		o.Timeout = 0
		o.Logger = slog.New(slog.NewTextHandler(log, nil))
		for _, f := range change {
			f(o)
		}
	})
	d.wrap = func(own file) file { return faultyFile{own, f} }
	c := d.Open(Options{Kind: "index"})
	t.Cleanup(c.Close)
	set(c, 1, 0, 100)
	written(c)
	return c, f, log
}

const (
	offLine  = "disk cache is off until the disk is well"
	onLine   = "disk cache is used again"
	goneLine = "level=WARN msg=\"files of the disk cache were removed or replaced"
	// readLine is logged if the disk cannot be written yet.
	readLine = "disk cache is read again"
)

// wantOnce fails unless the disk was turned off once, and on once.
func wantOnce(t *testing.T, c *Cache, log *logBuffer) {
	t.Helper()
	if n := found(t, c, 1, 0, 100); n != 100 {
		t.Errorf("found %d of 100 pages when the disk was well", n)
	}
	if off, on := log.count(offLine), log.count(onLine); off != 1 || on != 1 {
		t.Errorf("logged %d times that the disk is off, and %d times that it is on", off, on)
	}
}

// TestReadsThatHang: a look-up on a disk that hangs ends at its deadline. After 16 reads the disk
// is not read any more. It is used again when they have returned.
func TestReadsThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, f, log := faultyDisk(t)
		release := make(chan struct{})
		f.set(func() error { <-release; return nil })
		looks := 0
		for c.disk.readable() {
			looks++
			start := time.Now()
			if n := found(t, c, 1, 0, 1); n != 0 {
				t.Fatal("found a page that was not read")
			}
			if took := time.Since(start); took != defaultTimeout {
				t.Fatalf("a look-up took %v", took)
			}
		}
		if looks != maxStuck || c.disk.stuck.Load() != maxStuck {
			t.Errorf("off after %d look-ups, %d reads are stuck", looks, c.disk.stuck.Load())
		}
		start := time.Now()
		if n := found(t, c, 1, 0, 100); n != 0 || time.Since(start) != 0 {
			t.Errorf("found %d pages in %v on a disk that is off", n, time.Since(start))
		}
		time.Sleep(3 * maxBackoff)
		if c.disk.readable() {
			t.Error("the disk is used while its reads hang")
		}
		f.set(nil)
		close(release)
		time.Sleep(maxBackoff)
		if n := c.disk.stuck.Load(); n != 0 {
			t.Errorf("%d reads are stuck after all have returned", n)
		}
		wantOnce(t, c, log)
	})
}

// TestADiskThatIsSlow: after 16 look-ups in a row that timed out, the disk is not read any more.
func TestADiskThatIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, f, log := faultyDisk(t)
		f.set(func() error { time.Sleep(defaultTimeout + time.Millisecond); return nil })
		for range maxTimeouts {
			found(t, c, 1, 0, 1)
			time.Sleep(time.Second) // the read has returned
		}
		if c.disk.readable() {
			t.Error("a slow disk is read")
		}
		f.set(nil)
		time.Sleep(maxBackoff)
		wantOnce(t, c, log)
	})
}

// TestReadsThatFail: after 4 errors in a row the disk is not used any more. A disk that fails again
// is tried less often.
func TestReadsThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, f, log := faultyDisk(t)
		fail := func() error { return errors.New("input/output error") }
		f.set(fail)
		for range maxErrors {
			found(t, c, 1, 0, 1)
		}
		if c.disk.readable() || c.disk.writable() {
			t.Error("a disk that fails is used")
		}
		f.set(nil)
		time.Sleep(minBackoff)
		synctest.Wait()
		wantOnce(t, c, log)
		f.set(fail)
		for range maxErrors {
			found(t, c, 1, 0, 1)
		}
		f.set(nil)
		time.Sleep(2*minBackoff - 1)
		synctest.Wait()
		if c.disk.readable() {
			t.Error("a disk that failed twice is tried as soon as the first time")
		}
		time.Sleep(1)
		synctest.Wait()
		if !c.disk.readable() {
			t.Error("a disk that is well is not used")
		}
	})
}

// TestADiskThatFailsAtTheStart: what could not be read at the start is found when the disk is well.
func TestADiskThatFailsAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, f := t.TempDir(), &faults{}
		open := func() *Cache {
			d := openDisk(t, dir, nil)
			d.wrap = func(own file) file { return faultyFile{own, f} }
			return d.Open(Options{Kind: "index"})
		}
		c := open()
		set(c, 1, 0, 200)
		c.Close()
		f.set(func() error { return errors.New("input/output error") })
		c = open()
		defer c.Close()
		<-c.Loaded()
		f.set(nil)
		if n := found(t, c, 1, 0, 200); n != 0 || c.disk.readable() {
			t.Errorf("found %d pages on a disk that fails", n)
		}
		time.Sleep(minBackoff + checkEvery)
		synctest.Wait()
		if n := found(t, c, 1, 0, 200); n != 200 {
			t.Errorf("found %d of 200 pages when the disk was well", n)
		}
	})
}

// offs returns how many times a disk was turned off for a reason.
func offs(d *Disk, reason string) int {
	return int(testutil.ToFloat64(d.metrics.offs.WithLabelValues(reason)))
}

// TestADiskThatCannotBeWrittenIsReadAgain: reads that failed for a while on a disk that cannot be
// written are used again when they are well, although writes are not. Both failures are logged and
// counted.
func TestADiskThatCannotBeWrittenIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var readOnly atomic.Bool
		c, f, log := faultyDisk(t, func(o *DiskOptions) { o.LockDir = lockable(&readOnly) })
		readOnly.Store(true)
		time.Sleep(checkEvery)
		synctest.Wait()
		if c.disk.writable() || !c.disk.readable() {
			t.Fatalf("read-only: writable %v, readable %v", c.disk.writable(), c.disk.readable())
		}
		for round := 1; round <= 2; round++ {
			f.set(func() error { return errors.New("input/output error") })
			for range maxErrors {
				found(t, c, 1, 0, 1)
			}
			if c.disk.readable() {
				t.Fatal("a disk whose reads fail is read")
			}
			if n := offs(c.disk, "read_errors"); n != round {
				t.Errorf("counted %d failures of reads, want %d", n, round)
			}
			if n := log.count("reads_too=true"); n != round {
				t.Errorf("logged %d times that reads are off, want %d", n, round)
			}
			f.set(nil)
			time.Sleep(maxBackoff)
			synctest.Wait()
			if n := found(t, c, 1, 0, 100); n != 100 || c.disk.writable() {
				t.Errorf("found %d of 100 pages; writable: %v", n, c.disk.writable())
			}
			if n := log.count(readLine); n != round {
				t.Errorf("logged %d times that the disk is read again, want %d", n, round)
			}
		}
		readOnly.Store(false)
		time.Sleep(maxBackoff)
		synctest.Wait()
		if !c.disk.writable() || log.count(onLine) != 1 || offs(c.disk, "read_only") != 1 {
			t.Errorf("writable %v, logged %d times, counted %d times", c.disk.writable(),
				log.count(onLine), offs(c.disk, "read_only"))
		}
	})
}

// lockable returns a DiskOptions.LockDir that fails while the disk is read-only.
func lockable(readOnly *atomic.Bool) func() error {
	return func() error {
		if readOnly.Load() {
			return syscall.EROFS
		}
		return nil
	}
}

// TestAReadOnlyDiskThatFailsAtTheStart: what could not be read at the start is found when reads are
// well, although nothing can be written.
func TestAReadOnlyDiskThatFailsAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, f := t.TempDir(), &faults{}
		var readOnly atomic.Bool
		open := func() *Cache {
			d := openDisk(t, dir, func(o *DiskOptions) { o.LockDir = lockable(&readOnly) })
			d.wrap = func(own file) file { return faultyFile{own, f} }
			return d.Open(Options{Kind: "index"})
		}
		c := open()
		set(c, 1, 0, 200)
		c.Close()
		readOnly.Store(true)
		f.set(func() error { return errors.New("input/output error") })
		c = open()
		defer c.Close()
		<-c.Loaded()
		time.Sleep(maxBackoff)
		synctest.Wait()
		if c.disk.readable() {
			t.Error("a disk is read whose files cannot be")
		}
		f.set(nil)
		time.Sleep(maxBackoff + checkEvery)
		synctest.Wait()
		if n := found(t, c, 1, 0, 200); n != 200 || c.disk.writable() {
			t.Errorf("found %d of 200 pages; writable: %v", n, c.disk.writable())
		}
	})
}

// TestLookUpsWaitAsLongAsTheBucketTakes: a look-up gives up when the bucket would have answered.
func TestLookUpsWaitAsLongAsTheBucketTakes(t *testing.T) {
	for first, want := range map[time.Duration]time.Duration{
		0: defaultTimeout, time.Millisecond: minTimeout, time.Second: defaultTimeout,
		60 * time.Millisecond: 60 * time.Millisecond,
	} {
		d := openDisk(t, t.TempDir(), func(o *DiskOptions) {
			o.Timeout, o.FirstByte = 0, func() time.Duration { return first }
		})
		if got := d.timeout(); got != want {
			t.Errorf("first byte %v: got %v, want %v", first, got, want)
		}
	}
}

// TestLongStretchesFromTheBucket: a disk that was measured to be slower than the bucket is not read
// for a long stretch of neighbours. It is read for single pages.
func TestLongStretchesFromTheBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &faults{}
		d := openDisk(t, t.TempDir(), func(o *DiskOptions) {
			o.Bucket = func() cost.Model {
				return cost.Model{FirstByte: 5 * time.Millisecond, BytesPerSecond: 800e6}
			}
		})
		d.wrap = func(own file) file { return faultyFile{own, f} }
		c := d.Open(Options{Kind: "index"})
		defer c.Close()
		set(c, 1, 0, 100)
		written(c)
		for range 2 * minMeasured {
			found(t, c, 1, 0, 1)
			found(t, c, 1, 0, 50)
		}
		if n := found(t, c, 1, 0, 100); n != 100 {
			t.Errorf("a fast disk: found %d of 100 pages", n)
		}
		f.set(func() error { time.Sleep(80 * time.Millisecond); return nil })
		for range 4 * minMeasured {
			found(t, c, 1, 0, 1)
		}
		read := 0
		for range remeasure {
			if n := found(t, c, 1, 0, 100); n != 0 {
				read++
			}
		}
		if read != 1 {
			t.Errorf("a slow disk: %d of %d long stretches were read from it", read, remeasure)
		}
		if n := found(t, c, 1, 5, 1); n != 1 {
			t.Error("a slow disk: a single page was left to the bucket")
		}
	})
}

// TestCachesShareTheRate: two caches write no more in a second than one.
func TestCachesShareTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDisk(t, t.TempDir(), func(o *DiskOptions) { o.WriteRate = 1 << 20 })
		one, other := d.Open(Options{Kind: "index"}), d.Open(Options{Kind: "chunks"})
		defer one.Close()
		defer other.Close()
		start := time.Now()
		set(one, 1, 0, 500)
		set(other, 1, 0, 500)
		written(one)
		written(other)
		if took := time.Since(start); took < 6*time.Second {
			t.Errorf("8 MB were written in %v at 1 MiB/s", took)
		}
	})
}

// TestWritesAreBounded: in bytes that wait, in rate, and in bytes of a day, also over a restart.
func TestWritesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		const perDay = 8 << 20
		open := func() *Cache {
			return openDisk(t, dir, func(o *DiskOptions) {
				o.WriteRate, o.WritesPerDay = 1<<20, perDay
			}).Open(Options{Kind: "index", QueueBytes: 2 << 20})
		}
		c := open()
		set(c, 1, 0, 1000)
		if st := c.Stats(); st.PendingBytes > 7<<19 || st.Crowded == 0 {
			t.Errorf("waiting: %d bytes; dropped: %d", st.PendingBytes, st.Crowded)
		}
		start := time.Now()
		written(c)
		if took := time.Since(start); took < time.Second || took > 4*time.Second {
			t.Errorf("2 MiB were written in %v at 1 MiB/s", took)
		}
		for from := uint64(1000); from < 3000; from += 100 {
			set(c, 1, from, 100)
			written(c)
		}
		c.Close()
		if n := filesSize(t, dir); n > perDay+perDay/8 {
			t.Errorf("%d bytes were written in a day", n)
		}
		c = open()
		<-c.Loaded()
		set(c, 2, 0, 100)
		written(c)
		if n := found(t, c, 2, 0, 100); n != 0 {
			t.Errorf("%d pages were written beyond the bytes of the day", n)
		}
		time.Sleep(24 * time.Hour)
		set(c, 2, 0, 100)
		written(c)
		if n := found(t, c, 2, 0, 100); n != 100 {
			t.Errorf("%d of 100 pages are there on the next day", n)
		}
		c.Close()
	})
}

// TestLeastWritesPerDay: a cache without priority can write the largest batch of the largest pages.
func TestLeastWritesPerDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDisk(t, t.TempDir(), func(o *DiskOptions) { o.WritesPerDay = MinWritesPerDay })
		c := d.Open(Options{Kind: "chunks", PageBytes: 1 << 20})
		defer c.Close()
		first, _ := page(1, 0)
		second, _ := page(1, 1)
		c.Set(first, make([]byte, 1<<20-1<<10)) // does not fill the batch
		c.Set(second, make([]byte, 1<<20))
		written(c)
		if has := c.Has([]bytecache.Key{first, second}); !has[0] || !has[1] {
			t.Errorf("written: %v", has)
		}
	})
}

// mounted opens a cache with 100 pages on a file system of its own.
func mounted(t *testing.T, megabytes int) (root string, c *Cache, log *logBuffer) {
	t.Helper()
	root, log = disktest.Tmpfs(t, megabytes<<20), &logBuffer{}
	d := OpenDisk(DiskOptions{
		Dir: localfs.At(root, "disk"), Timeout: time.Minute,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	c = d.Open(Options{Kind: "index"})
	t.Cleanup(func() { c.Close(); d.Close() })
	set(c, 1, 0, 100)
	written(c)
	return root, c, log
}

// TestFullDisk: a disk without free space is read and not written. Nothing is written into the last
// twentieth of the file system.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root, c, log := mounted(t, 12)
		free := disktest.Fill(t, root)
		set(c, 2, 0, 200)
		written(c)
		if c.disk.writable() || !c.disk.readable() {
			t.Errorf("full: writable %v, readable %v", c.disk.writable(), c.disk.readable())
		}
		free()
		time.Sleep(2 * maxBackoff)
		if !c.disk.writable() {
			t.Error("not used after space was freed")
		}
		if off, on := log.count(offLine), log.count(onLine); off != 1 || on != 1 {
			t.Errorf("logged %d times that the disk is off, and %d times that it is on", off, on)
		}
		// The cache wants more than the file system has.
		fill(t, c, 3, 0, 3000)
		written(c)
		if n := found(t, c, 3, 2900, 100); n != 100 {
			t.Errorf("found %d of the newest 100 pages", n)
		}
		if size := filesSize(t, root); size > 12<<20*19/20 {
			t.Errorf("the files take %d bytes of 12 MiB", size)
		}
		if off := log.count(offLine); off != 1 {
			t.Errorf("the disk was turned off %d times", off)
		}
	})
}

// TestReadOnlyDisk: a disk that became read-only is read.
func TestReadOnlyDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root, c, log := mounted(t, 16)
		writable := disktest.ReadOnly(t, root)
		set(c, 2, 0, 200) // more than the rest of the segment
		written(c)
		if c.disk.writable() {
			t.Error("a read-only disk is written to")
		}
		if n := found(t, c, 1, 0, 100); n != 100 {
			t.Errorf("found %d of 100 pages on a read-only disk", n)
		}
		writable()
		time.Sleep(2 * maxBackoff)
		set(c, 3, 0, 10)
		written(c)
		if n := found(t, c, 3, 0, 10); n != 10 {
			t.Errorf("found %d of 10 pages after the disk was writable again", n)
		}
		wantOnce(t, c, log)
	})
}

// TestRemovedDisk: when the directory is gone, the cache starts again with an empty one. When a
// former disk is back, it has what is there.
func TestRemovedDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root, c, log := mounted(t, 16)
		disktest.Vanish(t, root)
		time.Sleep(checkEvery)
		synctest.Wait()
		if n, counted := log.count(goneLine), offs(c.disk, "removed"); n != 1 || counted != 1 {
			t.Errorf("logged %d times that files are gone, counted %d times", n, counted)
		}
		if n := found(t, c, 1, 0, 100); n != 0 {
			t.Errorf("found %d pages of a disk that is gone", n)
		}
		set(c, 2, 0, 100)
		written(c)
		if n := found(t, c, 2, 0, 100); n != 100 {
			t.Errorf("found %d of 100 pages in the new directory", n)
		}
		if left, err := filepath.Glob(filepath.Join(root, "disk", "index", "*")); err != nil ||
			len(left) != 1 {
			t.Errorf("in the new directory: %v, %v", left, err)
		}
	})
}

// TestRemovedDirectory: when the directory is removed, all caches start again in a new one, and one
// line says so. The same happens when the new one is removed.
func TestRemovedDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		log := &logBuffer{}
		d := openDisk(t, root, func(o *DiskOptions) {
			o.Logger = slog.New(slog.NewTextHandler(log, nil))
		})
		caches := []*Cache{d.Open(Options{Kind: "index"}), d.Open(Options{Kind: "chunks"})}
		for round := 1; round <= 2; round++ {
			for _, c := range caches {
				defer c.Close()
				set(c, 1, 0, 100)
				written(c)
				if n := found(t, c, 1, 0, 100); n != 100 {
					t.Errorf("found %d of 100 pages", n)
				}
			}
			if err := os.RemoveAll(filepath.Join(root, "disk")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(checkEvery)
			synctest.Wait()
			for _, c := range caches {
				if n := found(t, c, 1, 0, 100); n != 0 {
					t.Errorf("found %d pages that were removed", n)
				}
			}
			if n, counted := log.count(goneLine), offs(d, "removed"); n != round ||
				counted != round {
				t.Errorf("logged %d times that files are gone, counted %d times, want %d",
					n, counted, round)
			}
			if n := log.count("pages=0 bytes=0"); n != 2*round {
				t.Errorf("logged %d times what a cache starts again with, want %d", n, 2*round)
			}
			time.Sleep(time.Minute)
		}
	})
}

var _ bytecache.Disk = (*Cache)(nil)
