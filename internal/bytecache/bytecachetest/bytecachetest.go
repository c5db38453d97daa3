// Package bytecachetest is the conformance suite of byte caches: what every
// cache must do, whatever it is made of. It owns nothing and has no locks.
package bytecachetest

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"

	"larder/internal/bytecache"
)

// Cache is what the suite tests.
type Cache interface {
	Get(key uint64) ([]byte, bool)
	Set(key uint64, value []byte)
	Del(key uint64)
	Stats() bytecache.Stats
	Close()
}

// Traits of the cache under test.
type Traits struct {
	// Keeps says that what is set can be got: it is false for a cache that is
	// switched off.
	Keeps bool
}

// maxBytes of the caches that the suite asks for.
const maxBytes = 16 << 20

// Run runs the suite. newCache makes an empty cache of the given size; the
// suite closes it.
func Run(t *testing.T, traits Traits, newCache func(tb testing.TB, maxBytes int64) Cache) {
	f := func(name string, test func(t *testing.T, c Cache)) {
		t.Run(name, func(t *testing.T) {
			c := newCache(t, maxBytes)
			defer c.Close()
			test(t, c)
		})
	}
	f("Empty", testEmpty)
	f("VisibleAtOnce", func(t *testing.T, c Cache) { testVisibleAtOnce(t, c, traits) })
	f("ExactKeys", testExactKeys)
	f("FirstValueStays", func(t *testing.T, c Cache) { testFirstValueStays(t, c, traits) })
	f("EmptyValue", func(t *testing.T, c Cache) { testEmptyValue(t, c, traits) })
	f("TooLarge", testTooLarge)
	f("Del", func(t *testing.T, c Cache) { testDel(t, c, traits) })
	f("Concurrent", testConcurrent)
	f("Close", testClose)
	f("CloseWhileUsed", testCloseWhileUsed)
	f("Stats", func(t *testing.T, c Cache) { testStats(t, c, traits) })
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

// check fails when key has a value that was not set for it.
func check(t *testing.T, c Cache, key uint64, size int, must bool) {
	t.Helper()
	b, ok := c.Get(key)
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

func testEmpty(t *testing.T, c Cache) {
	for _, key := range []uint64{0, 1, ^uint64(0)} {
		if b, ok := c.Get(key); ok || b != nil {
			t.Errorf("key %#x: got %x, %v in an empty cache", key, b, ok)
		}
	}
}

func testVisibleAtOnce(t *testing.T, c Cache, traits Traits) {
	for key := range uint64(10_000) {
		c.Set(key, valueOf(key, 100))
		check(t, c, key, 100, traits.Keeps)
	}
	for key := range uint64(10_000) { // about 4 MB of 16
		check(t, c, key, 100, traits.Keeps)
	}
}

// testExactKeys sets keys that are easily taken for one another: neighbours,
// and keys that differ in one bit only.
func testExactKeys(t *testing.T, c Cache) {
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
		c.Set(key, valueOf(key, 32))
		for _, other := range []uint64{key, key + 1, key - 1, key ^ 1<<63, ^key} {
			check(t, c, other, 32, false)
		}
	}
	for _, key := range keys {
		check(t, c, key, 32, false)
	}
}

func testFirstValueStays(t *testing.T, c Cache, traits Traits) {
	first := valueOf(7, 64)
	c.Set(7, first)
	c.Set(7, valueOf(8, 1024))
	b, ok := c.Get(7)
	if ok != traits.Keeps {
		t.Fatalf("got %v, want %v", ok, traits.Keeps)
	}
	if ok && !bytes.Equal(b, first) {
		t.Error("a present key took another value")
	}
}

func testEmptyValue(t *testing.T, c Cache, traits Traits) {
	c.Set(3, []byte{})
	if b, ok := c.Get(3); ok != traits.Keeps || len(b) != 0 {
		t.Errorf("got %x, %v", b, ok)
	}
}

func testTooLarge(t *testing.T, c Cache) {
	c.Set(1, make([]byte, maxBytes+1))
	if _, ok := c.Get(1); ok {
		t.Error("a value larger than the cache is in it")
	}
	if st := c.Stats(); st.Bytes != 0 || st.Items != 0 {
		t.Errorf("it is accounted for: %+v", st)
	}
}

func testDel(t *testing.T, c Cache, traits Traits) {
	c.Del(1)
	for key := range uint64(1000) {
		c.Set(key, valueOf(key, 64))
	}
	for key := uint64(0); key < 1000; key += 2 {
		c.Del(key)
		if _, ok := c.Get(key); ok {
			t.Fatalf("key %d is there after Del", key)
		}
	}
	for key := uint64(1); key < 1000; key += 2 {
		check(t, c, key, 64, traits.Keeps)
	}
	for key := uint64(0); key < 1000; key += 2 {
		c.Set(key, valueOf(key+5000, 64)) // another value than before
		b, ok := c.Get(key)
		if ok != traits.Keeps {
			t.Fatalf("key %d set after Del: got %v", key, ok)
		}
		if ok && !bytes.Equal(b, valueOf(key+5000, 64)) {
			t.Fatalf("key %d has its value of before Del", key)
		}
	}
}

func testConcurrent(t *testing.T, c Cache) {
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 4000 {
				key := uint64(i*(g%3+1)) % 3000
				switch {
				case g == 7 && i%5 == 0:
					c.Del(key)
				case i%2 == 0:
					c.Set(key, valueOf(key, 2048))
				default:
					if b, ok := c.Get(key); ok && !bytes.Equal(b, valueOf(key, 2048)) {
						t.Errorf("key %d has another value", key)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func testClose(t *testing.T, c Cache) {
	c.Set(1, valueOf(1, 64))
	c.Close()
	if _, ok := c.Get(1); ok {
		t.Error("a closed cache has a value")
	}
	c.Set(2, valueOf(2, 64))
	c.Del(1)
	if _, ok := c.Get(2); ok {
		t.Error("a closed cache took a value")
	}
	c.Stats()
	c.Close()
}

func testCloseWhileUsed(t *testing.T, c Cache) {
	var wg sync.WaitGroup
	var started sync.WaitGroup
	for g := range 6 {
		started.Add(1)
		wg.Go(func() {
			for i := range 20_000 {
				key := uint64(g*20_000 + i)
				c.Set(key, valueOf(key, 512))
				c.Get(key)
				c.Del(key - 10)
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

func testStats(t *testing.T, c Cache, traits Traits) {
	c.Set(1, valueOf(1, 100))
	c.Get(1)
	c.Get(1)
	c.Get(2)
	st := c.Stats()
	got := [4]int64{st.Requests, st.Hits, st.HitBytes, st.Items}
	want := [4]int64{}
	if traits.Keeps {
		want = [4]int64{3, 2, 200, 1}
		if st.Bytes < 100 || st.Bytes > 1000 {
			t.Errorf("bytes: got %d for one value of 100", st.Bytes)
		}
	}
	if got != want {
		t.Errorf("requests, hits, hit bytes, items: got %v, want %v", got, want)
	}
}
