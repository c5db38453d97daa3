package diskcache

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"larder/internal/bytecache"
)

// pagesOf returns n pages of an object.
func pagesOf(object, n uint64) (keys []bytecache.Key, values [][]byte) {
	for no := range n {
		k, b := page(object, no)
		keys, values = append(keys, k), append(values, b)
	}
	return keys, values
}

// TestFillWaits: Fill loses no page, and waits as the rate permits. It leaves half of the queue to
// requests.
func TestFillWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openDisk(t, t.TempDir(), func(o *DiskOptions) { o.WriteRate = 1 << 20 }).
			Open(Options{Kind: "index", QueueBytes: 4 << 20})
		defer c.Close()
		keys, values := pagesOf(1, 1000)
		start := time.Now()
		if err := c.Fill(t.Context(), keys, values); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 4*time.Second {
			t.Errorf("8 MB were taken in %v at 1 MiB/s", took)
		}
		if st := c.Stats(); st.PendingBytes > 3<<20+1<<19 {
			t.Errorf("%d bytes wait", st.PendingBytes)
		}
		set(c, 2, 0, 100)
		if n := c.Stats().Crowded; n > 0 {
			t.Errorf("%d pages of requests found no place", n)
		}
		if n := found(t, c, 1, 0, 1000); n != 1000 {
			t.Errorf("%d of 1000 pages are there", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		keys, values = pagesOf(3, 1000)
		if err := c.Fill(ctx, keys, values); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the end of the context", err)
		}
		if err := c.Await(t.Context(), 1<<20); err != nil {
			t.Fatal(err)
		}
		if st := c.Stats(); st.PendingBytes > 3<<20 {
			t.Errorf("%d bytes wait after Await", st.PendingBytes)
		}
	})
}

// TestIndexPagesComeFirst: pages without priority leave a quarter of the bytes of a day, also over
// a restart. When all bytes are used up, Fill says so.
func TestIndexPagesComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perDay = 16 << 20
		dir := t.TempDir()
		open := func() (index, chunks *Cache) {
			d := openDisk(t, dir, func(o *DiskOptions) { o.WritesPerDay = perDay })
			index = d.Open(Options{Kind: "index", Priority: true})
			chunks = d.Open(Options{Kind: "chunks"})
			<-index.Loaded()
			<-chunks.Loaded()
			return index, chunks
		}
		index, chunks := open()
		for from := uint64(0); from < 3000; from += 100 {
			set(chunks, 1, from, 100)
			written(chunks)
		}
		if n := filesSize(t, dir); n < perDay/2 || n > perDay*7/8 {
			t.Errorf("%d bytes of chunk pages were written, want about 3/4 of %d", n, perDay)
		}
		index.Close()
		chunks.Close()
		index, chunks = open()
		defer index.Close()
		defer chunks.Close()
		set(chunks, 2, 0, 200)
		written(chunks)
		if n := found(t, chunks, 2, 0, 200); n > 20 { // the rest of three quarters
			t.Errorf("%d chunk pages were written of the last quarter", n)
		}
		keys, values := pagesOf(3, 300)
		if err := index.Fill(t.Context(), keys, values); err != nil || !index.Available() {
			t.Errorf("index pages are not written: %v", err)
		}
		written(index)
		if n := found(t, index, 3, 0, 300); n != 300 {
			t.Errorf("%d of 300 index pages were written", n)
		}
		var err error
		for object := uint64(4); object < 20 && err == nil; object++ {
			keys, values = pagesOf(object, 100)
			err = index.Fill(t.Context(), keys, values)
			written(index)
		}
		if !errors.Is(err, ErrUnavailable) || index.Available() {
			t.Errorf("beyond the bytes of the day: %v", err)
		}
	})
}

// TestEvictedObjects: Evicted gets the objects whose pages are gone, and not those whose pages were
// used and therefore written again. A segment may have no footer, because a write to it failed.
func TestEvictedObjects(t *testing.T) {
	t.Run("Sealed", func(t *testing.T) { testEvictedObjects(t, false) })
	t.Run("GivenUp", func(t *testing.T) { testEvictedObjects(t, true) })
}

func testEvictedObjects(t *testing.T, giveUp bool) {
	synctest.Test(t, func(t *testing.T) {
		gone := map[uint64]int{}
		d, f := openDisk(t, t.TempDir(), nil), &faults{}
		d.wrap = func(own file) file { return faultyFile{own, f} }
		c := d.Open(Options{
			Kind: "index", MaxBytes: 16 << 20, Evicted: func(objects []bytecache.ID) {
				for _, id := range objects {
					if no := binary.BigEndian.Uint32(id[bytecache.PageAt:]); no != 0 {
						t.Errorf("page %d, want the first of the object", no)
					}
					gone[binary.BigEndian.Uint64(id[:])]++
				}
			},
		})
		defer c.Close()
		fill(t, c, 1, 0, 50)
		fill(t, c, 2, 0, 50)
		written(c)
		if giveUp {
			f.failWrites(syscall.EIO)
			set(c, 4, 0, 1)
			written(c)
			f.failWrites(nil)
			time.Sleep(maxBackoff)
			synctest.Wait()
			if !c.disk.writable() || offs(d, "write_errors") != 1 {
				t.Fatal("the write did not fail, or the disk is not used again")
			}
		}
		found(t, c, 1, 0, 50)
		fill(t, c, 3, 0, 2000)
		written(c)
		if n := found(t, c, 1, 0, 50); n != 50 {
			t.Errorf("%d of 50 pages that were used are there", n)
		}
		if gone[2] != 1 || gone[1] > 0 {
			t.Errorf("evicted: %v, want object 2 and not 1", gone)
		}
	})
}

// TestLost: what the queue loses is noticed.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openDisk(t, t.TempDir(), func(o *DiskOptions) { o.WritesPerDay = 4 << 20 }).
			Open(Options{Kind: "index"})
		defer c.Close()
		<-c.Loaded()
		keys, values := pagesOf(1, 900)
		before := c.Lost()
		_ = c.Fill(t.Context(), keys, values) // as far as the bytes of the day go
		written(c)
		has := c.Has(keys)
		if slices.Contains(has, false) != (c.Lost() > before) {
			t.Errorf("pages there: %v; lost: %d", has, c.Lost()-before)
		}
		if !slices.Contains(has, false) {
			t.Error("all pages were written, beyond the bytes of the day")
		}
	})
}
