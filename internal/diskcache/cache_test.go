package diskcache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"larder/internal/bytecache"
)

const pageBytes = 8 << 10

// pageKey returns the key of a page of an object.
func pageKey(object, no uint64) bytecache.Key {
	k := bytecache.Key{Local: object<<bytecache.PageBits | no}
	binary.BigEndian.PutUint64(k.ID[:], object)
	binary.BigEndian.PutUint32(k.ID[bytecache.PageAt:], uint32(no))
	return k
}

// page returns the key and the bytes of a page of an object.
func page(object, no uint64) (bytecache.Key, []byte) {
	k := pageKey(object, no)
	b := make([]byte, pageBytes)
	r := rand.New(rand.NewPCG(object, no))
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return k, b
}

func set(c *Cache, object, from, n uint64) {
	for no := from; no < from+n; no++ {
		k, b := page(object, no)
		c.Set(k, b)
	}
}

// found returns how many of the pages are found. It fails if one is wrong.
func found(t *testing.T, c bytecache.Cache, object, from, n uint64) (found int) {
	t.Helper()
	keys, want := make([]bytecache.Key, n), make([][]byte, n)
	for i := range n {
		keys[i], want[i] = page(object, from+i)
	}
	values := make([][]byte, n)
	c.Fetch(t.Context(), keys, values)
	for i, b := range values {
		if b == nil {
			continue
		}
		if found++; !bytes.Equal(b, want[i]) {
			t.Fatalf("object %d, page %d: wrong bytes", object, from+uint64(i))
		}
	}
	return found
}

// written waits until the queue has been written.
func written(c *Cache) {
	for {
		c.mu.Lock()
		pending, changed := len(c.pending), c.changed
		c.mu.Unlock()
		if pending == 0 {
			return
		}
		<-changed
	}
}

// fill writes pages, not faster than the disk.
func fill(t *testing.T, c *Cache, object, from, n uint64) {
	t.Helper()
	for no := from; no < from+n; no++ {
		k, b := page(object, no)
		if err := c.Fill(t.Context(), []bytecache.Key{k}, [][]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRestart: the next process finds what was there, also the values that waited to be written
// when the process stopped.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	c := openDisk(t, dir, nil).Open(Options{Kind: "index"})
	set(c, 1, 0, 500)
	c.Close()
	c = openDisk(t, dir, nil).Open(Options{Kind: "index"})
	defer c.Close()
	<-c.Loaded()
	if n := found(t, c, 1, 0, 500); n != 500 {
		t.Errorf("found %d of 500 pages after a restart", n)
	}
	if n := found(t, c, 2, 0, 500); n != 0 {
		t.Errorf("found %d pages of another object", n)
	}
	if st := c.Stats(); st.Items != 500 || st.Hits != 500 || st.Requests != 1000 {
		t.Errorf("stats after a restart: %+v", st)
	}
}

// TestNeighboursAreReadTogether: pages of one object are read in few reads, also if they were set
// among those of others.
func TestNeighboursAreReadTogether(t *testing.T) {
	c := openDisk(t, t.TempDir(), nil).Open(Options{Kind: "index"})
	defer c.Close()
	k, b := page(9, 0)
	for no := range uint64(32) {
		set(c, 1, no, 1)
		set(c, 2, no, 1)
	}
	c.Set(k, b)
	written(c)
	if n := found(t, c, 1, 0, 32); n != 32 {
		t.Fatalf("found %d of 32 pages", n)
	}
	if reads := c.disk.short.Load() + c.disk.long.Load(); reads > 2 {
		t.Errorf("32 neighbours took %d reads", reads)
	}
}

// TestSizeIsKept: the files stay within the size, old segments go first, and what is hot stays.
func TestSizeIsKept(t *testing.T) {
	dir := t.TempDir()
	c := openDisk(t, dir, nil).Open(Options{Kind: "chunks", MaxBytes: 16 << 20})
	defer c.Close()
	const hot, all = 90, 6000 // 48 MB
	fill(t, c, 1, 0, hot)
	written(c)
	for from := uint64(0); from < all; from += 500 {
		if n := found(t, c, 1, 0, hot); n != hot {
			t.Fatalf("after %d pages, %d of %d hot pages are there", from, n, hot)
		}
		fill(t, c, 2, from, 500)
		written(c)
		if size := filesSize(t, dir); size > 16<<20 {
			t.Fatalf("the files take %d bytes", size)
		}
	}
	if n := found(t, c, 2, 0, 500); n != 0 {
		t.Errorf("%d of the oldest pages are there", n)
	}
	if n := found(t, c, 2, all-500, 500); n != 500 {
		t.Errorf("%d of the newest 500 pages are there", n)
	}
	st := c.Stats()
	if st.Evictions == 0 || st.Bytes > 16<<20 || st.Added-st.Departed != st.Items {
		t.Errorf("stats: %+v", st)
	}
	if st.Items < 1300 {
		t.Errorf("%d pages are in 16 MiB", st.Items)
	}
}

func filesSize(t *testing.T, dir string) (size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // an evicted segment
		}
		size += info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// TestASmallerSizeDropsTheOldest: a cache that is opened with a smaller size keeps the newest.
func TestASmallerSizeDropsTheOldest(t *testing.T) {
	dir := t.TempDir()
	c := openDisk(t, dir, nil).Open(Options{Kind: "index", MaxBytes: 64 << 20})
	fill(t, c, 1, 0, 4000)
	c.Close()
	c = openDisk(t, dir, nil).Open(Options{Kind: "index", MaxBytes: 16 << 20})
	defer c.Close()
	<-c.Loaded()
	if size := filesSize(t, dir); size > 16<<20 {
		t.Errorf("the files take %d bytes", size)
	}
	if old, cur := found(t, c, 1, 0, 1000), found(t, c, 1, 3000, 1000); old != 0 || cur < 900 {
		t.Errorf("%d of the oldest 1000 pages are there, and %d of the newest", old, cur)
	}
}

// TestSecondUse: pages that are used once are not written, and those that are used twice are,
// wherever the second use finds them.
func TestSecondUse(t *testing.T) {
	disk := openDisk(t, t.TempDir(), nil).Open(Options{Kind: "chunks", SecondUse: true})
	c := bytecache.Open(bytecache.Options{MaxBytes: 8 << 20}, disk, nil)
	defer c.Close()
	set(disk, 1, 0, 100)
	if n := found(t, disk, 1, 0, 100); n != 0 {
		t.Errorf("%d pages are there after their first use", n)
	}
	set(disk, 1, 0, 50) // memory has dropped them, and they are read again
	if n := found(t, disk, 1, 0, 100); n != 50 {
		t.Errorf("%d pages are there after 50 were used twice", n)
	}
	k, b := page(2, 7)
	c.Set(k, b)
	c.Get(k.Local)
	if n := found(t, disk, 2, 7, 1); n != 1 {
		t.Error("a page that memory was asked for again is not there")
	}
}

// TestHas: what a reader ahead asks.
func TestHas(t *testing.T) {
	c := openDisk(t, t.TempDir(), nil).Open(Options{Kind: "index"})
	defer c.Close()
	set(c, 1, 0, 10)
	written(c)
	set(c, 1, 10, 10)
	keys := make([]bytecache.Key, 30)
	for i := range keys {
		keys[i] = pageKey(1, uint64(i))
	}
	want := append(slices.Repeat([]bool{true}, 20), slices.Repeat([]bool{false}, 10)...)
	if got := c.Has(keys); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// TestOtherContentIsNotFound: the same page of a block with other content has another identity.
func TestOtherContentIsNotFound(t *testing.T) {
	c := openDisk(t, t.TempDir(), nil).Open(Options{Kind: "index"})
	defer c.Close()
	k, b := page(1, 1)
	c.Set(k, b)
	written(c)
	k.ID[31]++ // content
	values := make([][]byte, 1)
	if c.Fetch(t.Context(), []bytecache.Key{k}, values); values[0] != nil {
		t.Error("found a page of other content")
	}
}

// TestDamage: with any byte of a segment changed, no wrong page is found, in this process or the
// next one, and a page that was damaged is written again.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	c := openDisk(t, dir, nil).Open(Options{Kind: "index"})
	set(c, 1, 0, 20)
	c.Close()
	name := filepath.Join(dir, "disk", "index", segmentName(1))
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for at := 3; at < len(whole); at += 4001 {
		bad := bytes.Clone(whole)
		bad[at] ^= 0x10
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		c := openDisk(t, dir, nil).Open(Options{Kind: "index"})
		<-c.Loaded()
		n := found(t, c, 1, 0, 20)
		set(c, 1, 0, 20)
		if again := found(t, c, 1, 0, 20); n < 19 && at >= headerBytes && n > 0 || again != 20 {
			t.Errorf("byte %d was changed: found %d pages of 20, and %d after they were set", at, n,
				again)
		}
		c.Close()
		for _, other := range []uint64{2, 3} { // what this process wrote
			_ = os.Remove(filepath.Join(dir, "disk", "index", segmentName(other)))
		}
	}
}

// TestKilledAtAnyWrite: a process that is killed while it writes leaves a prefix of its last
// segment. The next one finds every whole record before the cut, and all of the segments before.
func TestKilledAtAnyWrite(t *testing.T) {
	dir := t.TempDir()
	c := openDisk(t, dir, nil).Open(Options{Kind: "index"})
	const all = 200 // two segments
	fill(t, c, 1, 0, all)
	c.Close()
	last := filepath.Join(dir, "disk", "index", segmentName(2))
	whole, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	record := int(recordBytes(pageBytes))
	entries, err := readFooter(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	inLast := len(entries)
	if inLast < 20 || inLast > 150 {
		t.Fatalf("%d pages are in the last segment", inLast)
	}
	step := record * 5 / 3
	if os.Getenv("LARDER_LONG") != "" {
		step = unit / 2
	}
	for cut := 0; cut <= len(whole); cut += step {
		if err := os.WriteFile(last, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		c := openDisk(t, dir, nil).Open(Options{Kind: "index"})
		<-c.Loaded()
		want := all - inLast + min(max(cut-headerBytes, 0)/record, inLast)
		if got := found(t, c, 1, 0, all); got != want {
			t.Errorf("cut at %d of %d: found %d pages, want %d", cut, len(whole), got, want)
		}
		c.Close()
	}
}

// TestUnknownFilesAreRemoved: segments of other versions go, other files stay.
func TestUnknownFilesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "disk", "index")
	if err := os.MkdirAll(at, 0o750); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{segmentName(7), "notes"} {
		if err := os.WriteFile(filepath.Join(at, name), make([]byte, 1000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := openDisk(t, dir, nil).Open(Options{Kind: "index"})
	defer c.Close()
	<-c.Loaded()
	left, err := os.ReadDir(at)
	if err != nil || len(left) != 1 || left[0].Name() != "notes" {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestIndexMemory: the index takes at most 0.1 % of the disk.
func TestIndexMemory(t *testing.T) {
	for _, size := range []int64{16 << 20, 10 << 30, 100e9, MaxBytes} {
		o := Options{MaxBytes: size, SecondUse: true}
		if size > 64<<20 && o.IndexBytes() > size/1000 {
			t.Errorf("%d bytes need %d bytes of memory", size, o.IndexBytes())
		}
		o = o.withDefaults()
		if n := size / o.segmentBytes(); n > maxSlots || o.segmentBytes() > maxSegment {
			t.Errorf("%d bytes have %d segments of %d bytes", size, n, o.segmentBytes())
		}
	}
	if n := (Options{MaxBytes: 100e9}).IndexBytes(); n > 95e6 {
		t.Errorf("100 GB need %d bytes of memory", n)
	}
}

// TestFullTable: a table with as many pages as it is made for loses almost none.
func TestFullTable(t *testing.T) {
	const pages = 1 << 18
	tab, replaced := newTable(pages), 0
	id := func(i uint64) *bytecache.ID {
		k := pageKey(i, 0)
		return &k.ID
	}
	for i := range uint64(pages) {
		if tab.put(hashOf(id(i)), uint32(i)) {
			replaced++
		}
	}
	wrong := 0
	for i := range uint64(pages) {
		if at := tab.find(hashOf(id(i))); at < 0 || tab.locs[at] != uint32(i) {
			wrong++
		}
	}
	if replaced > pages/100_000 || wrong > pages/100_000 {
		t.Errorf("of %d pages, %d were replaced, and %d are not found", pages, replaced, wrong)
	}
	for i := range uint64(pages) {
		if at := tab.find(hashOf(id(i))); at >= 0 {
			tab.remove(at)
		}
	}
	if tab.used > 2 {
		t.Errorf("%d places are used after all pages were removed", tab.used)
	}
}
