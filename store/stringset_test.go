package store

import (
	"errors"
	"fmt"
	"larder/store/storepb"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// unlimited returns bytes of which there are always more.
func unlimited() *labelBytes { return &labelBytes{grow: func(int64) error { return nil }} }

// strings returns the strings of a list.
func (l stringList) strings() (out []string) {
	for rest := []byte(l); len(rest) > 0; {
		var s []byte
		s, rest = storepb.NextString(rest)
		out = append(out, string(s))
	}
	return out
}

func TestStringSet(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine: the race detector cannot find anything")
	}
	f := func(name string, limit int, in ...string) {
		t.Helper()
		s, other := newStringSet(unlimited()), newStringSet(unlimited())
		want := map[string]struct{}{}
		for i, v := range in {
			want[v] = struct{}{}
			set := s
			if i%3 == 0 {
				set = other
			}
			if err := set.add([]byte(v)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.moveTo(other); err != nil {
			t.Fatal(err)
		}
		sorted := slices.Sorted(maps.Keys(want))
		got := other.finish()
		if limit > 0 {
			sorted, got = sorted[:min(limit, len(sorted))], got.first(limit)
		}
		if diff := cmp.Diff(sorted, got.strings()); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
	f("nothing", 0)
	f("the empty string", 0, "", "")
	f("in order", 0, "", "a", "a", "aa", "b")
	f("in order at first", 0, "a", "b", "d", "c", "a", "d", "e")
	f("in reverse order", 0, "c", "b", "a", "")
	f("limited", 2, "c", "b", "a", "b")
	f("limited beyond its length", 9, "c", "b", "a", "b")
	f(
		"longer than a piece of the arena", 0, "a", strings.Repeat("x", 3*maxSetPiece), "b",
		strings.Repeat("x", 3*maxSetPiece), strings.Repeat("y", maxSetPiece), "c",
	)

	rng := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		var in []string
		for n := rng.IntN(20_000); len(in) < n; {
			in = append(in, fmt.Sprintf("%0*d", rng.IntN(30), rng.IntN(1+rng.IntN(20_000))))
		}
		if rng.IntN(2) == 0 {
			slices.Sort(in[:rng.IntN(len(in)+1)])
		}
		f("random", rng.IntN(3)*rng.IntN(1000), in...)
	}
}

// TestStringSetReservesWhatItTakes shows that a set of many values and the list that it becomes
// take at most the bytes that the set has reserved, and at least a third of them.
func TestStringSetReservesWhatItTakes(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine: the race detector cannot find anything")
	}
	f := func(name string, n int, value func(i int) string) {
		t.Helper()
		before := heap()
		bytes := unlimited()
		s := newStringSet(bytes)
		for i := range n {
			if err := s.add([]byte(value(i))); err != nil {
				t.Fatal(err)
			}
		}
		// The set has a smaller table while it grows, and one for sorting afterwards.
		table := int64(4*len(s.table)/2 + 16*n)
		list := s.list()
		took := int64(heap()-before) + table
		runtime.KeepAlive(list)
		runtime.KeepAlive(s)
		if took > s.reserved+maxSetPiece || took < s.reserved/3 {
			t.Errorf("%s: %d values took %d bytes, reserved %d", name, n, took, s.reserved)
		}
	}
	f("in order", 300_000, func(i int) string { return fmt.Sprintf("%09d", i) })
	f("short", 300_000, func(i int) string { return fmt.Sprintf("%x", uint32(i)*2654435769) })
	f("long", 30_000, func(i int) string {
		return fmt.Sprintf("%x-%0200d", uint32(i)*2654435769, i)
	})

	full := errors.New("full")
	s := newStringSet(&labelBytes{free: firstSetStep, grow: func(int64) error { return full }})
	if err := s.add([]byte("a")); err != nil {
		t.Errorf("got %v for what was reserved", err)
	}
	if err := s.add(make([]byte, firstSetStep)); !errors.Is(err, full) {
		t.Errorf("got %v, want that it is full", err)
	}
}

// heap is what is alive.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what a sync.Pool drops in the first is freed in the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
