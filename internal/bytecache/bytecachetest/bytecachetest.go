package bytecachetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync"
	"testing"

	"larder/internal/bytecache"
)

// Traits of the cache under test.
type Traits struct {
	// Keeps means that values that are set can be found. It is false for a cache that is disabled.
	Keeps bool
	// Remote means that values leave the process and that Fetch finds them; Get may find fewer.
	// Such a cache may replace the value of a present key.
	Remote bool
	// Unheld means that the process keeps no values, so that their number is not known.
	Unheld bool
}

// maxBytes is the size of the caches in the suite.
const maxBytes = 16 << 20

// Run runs the suite. newCache makes an empty cache of the given size; the suite closes it.
func Run(
	t *testing.T, traits Traits, newCache func(tb testing.TB, maxBytes int64) bytecache.Cache,
) {
	f := func(name string, test func(t *testing.T, c bytecache.Cache)) {
		t.Run(name, func(t *testing.T) {
			c := newCache(t, maxBytes)
			defer c.Close()
			test(t, c)
		})
	}
	f("Empty", testEmpty)
	f("VisibleAtOnce", func(t *testing.T, c bytecache.Cache) { testVisibleAtOnce(t, c, traits) })
	f("ExactKeys", testExactKeys)
	if !traits.Remote {
		f("FirstValueStays",
			func(t *testing.T, c bytecache.Cache) { testFirstValueStays(t, c, traits) })
	}
	f("Fetch", func(t *testing.T, c bytecache.Cache) { testFetch(t, c, traits) })
	f("EmptyValue", func(t *testing.T, c bytecache.Cache) { testEmptyValue(t, c, traits) })
	f("TooLarge", testTooLarge)
	f("Del", func(t *testing.T, c bytecache.Cache) { testDel(t, c, traits) })
	f("Concurrent", testConcurrent)
	f("Close", testClose)
	f("CloseWhileUsed", testCloseWhileUsed)
	f("Stats", func(t *testing.T, c bytecache.Cache) { testStats(t, c, traits) })
}

// valueOf returns a value that no other key has.
func valueOf(key uint64, size int) []byte {
	b := make([]byte, max(size, 8))
	for i := 0; i+8 <= len(b); i += 8 {
		binary.BigEndian.PutUint64(b[i:], key*0x9e3779b97f4a7c15+uint64(i))
	}
	binary.BigEndian.PutUint64(b, key)
	return b
}

// keyOf returns the key of a page with the given local part, see bytecache.PageBits.
func keyOf(local uint64) bytecache.Key {
	k := bytecache.Key{Local: local}
	binary.BigEndian.PutUint64(k.ID[:], local>>bytecache.PageBits)
	binary.BigEndian.PutUint32(k.ID[bytecache.PageAt:], uint32(local&(1<<bytecache.PageBits-1)))
	return k
}

// get returns a value as Fetch finds it, and fails if Get returns another one.
func get(t *testing.T, c bytecache.Cache, key uint64) ([]byte, bool) {
	t.Helper()
	values := make([][]byte, 1)
	near, ok := c.Get(key)
	c.Fetch(t.Context(), []bytecache.Key{keyOf(key)}, values)
	if ok && values[0] != nil && !bytes.Equal(near, values[0]) {
		t.Errorf("key %#x: Get has %x, Fetch %x", key, near, values[0])
	}
	return values[0], values[0] != nil
}

// check fails if key has a value that was not set for it.
func check(t *testing.T, c bytecache.Cache, key uint64, size int, must bool) {
	t.Helper()
	b, ok := get(t, c, key)
	if !ok {
		if must {
			t.Fatalf("key %#x: missing", key)
		}
		return
	}
	if !bytes.Equal(b, valueOf(key, size)) {
		t.Fatalf("key %#x: got another value: %x", key, b[:min(len(b), 16)])
	}
}

func testEmpty(t *testing.T, c bytecache.Cache) {
	for _, key := range []uint64{0, 1, ^uint64(0)} {
		if b, ok := get(t, c, key); ok || b != nil {
			t.Errorf("key %#x: got %x, %v in an empty cache", key, b, ok)
		}
	}
}

func testVisibleAtOnce(t *testing.T, c bytecache.Cache, traits Traits) {
	n := uint64(10_000) // about 4 MB of 16
	if traits.Remote {
		n = 2000 // each is a round trip
	}
	for key := range n {
		c.Set(keyOf(key), valueOf(key, 100))
		check(t, c, key, 100, traits.Keeps)
	}
	for key := range n {
		check(t, c, key, 100, traits.Keeps)
	}
}

// testExactKeys sets keys that are easily confused: consecutive ones, and keys that differ in one
// bit.
func testExactKeys(t *testing.T, c bytecache.Cache) {
	var keys []uint64
	for _, base := range []uint64{0, 1 << 26, 1<<40 | 1<<26, 0x5555555555555555} {
		for n := range uint64(300) {
			keys = append(keys, base+n)
		}
		for bit := range 64 {
			keys = append(keys, base^1<<bit)
		}
	}
	for _, key := range keys {
		c.Set(keyOf(key), valueOf(key, 32))
		for _, other := range []uint64{key, key + 1, key - 1, key ^ 1<<63, ^key} {
			check(t, c, other, 32, false)
		}
	}
	for _, key := range keys {
		check(t, c, key, 32, false)
	}
}

func testFirstValueStays(t *testing.T, c bytecache.Cache, traits Traits) {
	first := valueOf(7, 64)
	c.Set(keyOf(7), first)
	c.Set(keyOf(7), valueOf(8, 1024))
	b, ok := get(t, c, 7)
	if ok != traits.Keeps {
		t.Fatalf("got %v, want %v", ok, traits.Keeps)
	}
	if ok && !bytes.Equal(b, first) {
		t.Error("the value of a present key was replaced")
	}
}

func testEmptyValue(t *testing.T, c bytecache.Cache, traits Traits) {
	c.Set(keyOf(3), []byte{})
	if b, ok := get(t, c, 3); ok != traits.Keeps || len(b) != 0 {
		t.Errorf("got %x, %v", b, ok)
	}
}

func testTooLarge(t *testing.T, c bytecache.Cache) {
	c.Set(keyOf(1), make([]byte, maxBytes+1))
	if _, ok := get(t, c, 1); ok {
		t.Error("a value larger than the cache is in it")
	}
	if st := c.Stats(); st.Bytes != 0 || st.Items != 0 {
		t.Errorf("the refused value is accounted for: %+v", st)
	}
}

func testDel(t *testing.T, c bytecache.Cache, traits Traits) {
	c.Del(keyOf(1))
	for key := range uint64(1000) {
		c.Set(keyOf(key), valueOf(key, 64))
	}
	for key := uint64(0); key < 1000; key += 2 {
		c.Del(keyOf(key))
		if _, ok := get(t, c, key); ok {
			t.Fatalf("key %d is there after Del", key)
		}
	}
	for key := uint64(1); key < 1000; key += 2 {
		check(t, c, key, 64, traits.Keeps)
	}
	for key := uint64(0); key < 1000; key += 2 {
		// A value different from the former one, usually longer.
		c.Set(keyOf(key), valueOf(key+5000, 64+int(key%5)*64))
		b, ok := get(t, c, key)
		if ok != traits.Keeps {
			t.Fatalf("key %d set after Del: got %v", key, ok)
		}
		if ok && !bytes.Equal(b, valueOf(key+5000, 64+int(key%5)*64)) {
			t.Fatalf("key %d has its value from before Del", key)
		}
	}
}

func testConcurrent(t *testing.T, c bytecache.Cache) {
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				key := uint64(i*(g%3+1)) % 1500
				switch {
				case g == 7 && i%5 == 0:
					c.Del(keyOf(key))
				case i%2 == 0:
					c.Set(keyOf(key), valueOf(key, 2048))
				default:
					if b, ok := get(t, c, key); ok && !bytes.Equal(b, valueOf(key, 2048)) {
						t.Errorf("key %d has another value", key)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func testClose(t *testing.T, c bytecache.Cache) {
	c.Set(keyOf(1), valueOf(1, 64))
	c.Close()
	if _, ok := get(t, c, 1); ok {
		t.Error("a closed cache has a value")
	}
	c.Set(keyOf(2), valueOf(2, 64))
	c.Del(keyOf(1))
	if _, ok := get(t, c, 2); ok {
		t.Error("a closed cache took a value")
	}
	c.Stats()
	c.Close()
}

func testCloseWhileUsed(t *testing.T, c bytecache.Cache) {
	var wg sync.WaitGroup
	var started sync.WaitGroup
	for g := range 6 {
		started.Add(1)
		wg.Go(func() {
			for i := range 5000 {
				key := uint64(g*5000 + i)
				c.Set(keyOf(key), valueOf(key, 512))
				c.Get(key)
				c.Del(keyOf(key - 10))
				if i == 100 {
					started.Done()
				}
			}
		})
	}
	started.Wait()
	c.Close()
	wg.Wait()
}

func testStats(t *testing.T, c bytecache.Cache, traits Traits) {
	c.Set(keyOf(1), valueOf(1, 100))
	for _, key := range []uint64{1, 1, 2} {
		if _, ok := c.Get(key); !ok {
			c.Fetch(t.Context(), []bytecache.Key{keyOf(key)}, make([][]byte, 1))
		}
	}
	st := c.Stats()
	got := [4]int64{st.Requests, st.Hits, st.HitBytes, st.Items}
	want := [4]int64{}
	if traits.Keeps {
		want = [4]int64{3, 2, 200, 1}
		if known := c.Remote() == traits.Remote; !known {
			t.Errorf("Remote: got %v", c.Remote())
		}
	}
	if traits.Unheld {
		want[3] = 0
	} else if traits.Keeps && (st.Bytes < 100 || st.Bytes > 1000) {
		t.Errorf("bytes: got %d for one value of 100", st.Bytes)
	}
	if got != want {
		t.Errorf("requests, hits, hit bytes, items: got %v, want %v", got, want)
	}
}

// testFetch requests many keys at once. Some are present, some are not, and some already have a
// value.
func testFetch(t *testing.T, c bytecache.Cache, traits Traits) {
	const n = 300
	keys, values := make([]bytecache.Key, n), make([][]byte, n)
	mine := []byte("the caller's")
	for i := range uint64(n) {
		keys[i] = keyOf(i)
		if i%3 != 0 {
			c.Set(keys[i], valueOf(i, 64))
		}
		if i%5 == 0 {
			values[i] = mine
		}
	}
	c.Fetch(t.Context(), keys, values)
	for i := range uint64(n) {
		switch got := values[i]; {
		case i%5 == 0:
			if string(got) != string(mine) {
				t.Errorf("key %d: its value was there, and is now %x", i, got)
			}
		case i%3 != 0 && traits.Keeps:
			if !bytes.Equal(got, valueOf(i, 64)) {
				t.Errorf("key %d: got %x", i, got)
			}
		case got != nil:
			t.Errorf("key %d: got %x, nothing was set", i, got)
		}
	}
	c.Fetch(t.Context(), nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.Fetch(ctx, keys, values) // may find any of them, must return
}
