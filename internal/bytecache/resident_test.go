package bytecache

import (
	"maps"
	"testing"
)

// TestEachValueInMemory: all values are listed, with those that were used again. A value that is
// made so by Ask outlives a scan, as one that was looked up often.
func TestEachValueInMemory(t *testing.T) {
	m := NewMemory(Options{MaxBytes: 1 << 20, MaxValueBytes: 8 << 10})
	defer m.Close()
	set := func(key uint64) { m.Set(Key{Local: key}, make([]byte, 8<<10)) }
	want := map[uint64]bool{}
	for key := range uint64(5) {
		set(key)
		want[key] = key == 1 || key == 3
	}
	for range soonLooks {
		m.Get(1)
	}
	m.Ask(3)
	m.Ask(99) // not there
	got := map[uint64]bool{}
	m.Each(func(key uint64, asked bool) { got[key] = asked })
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for key := range uint64(1000) {
		set(100 + key)
	}
	m.values.Wait()
	got = map[uint64]bool{}
	m.Each(func(key uint64, asked bool) { got[key] = asked })
	if !got[3] {
		t.Error("a scan evicted the value that counts as asked")
	}
	m.Close()
	m.Each(func(key uint64, _ bool) { t.Errorf("key %d after Close", key) })
}
