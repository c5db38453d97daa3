package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStringSet(t *testing.T) {
	f := func(name string, limit int, in ...string) {
		t.Helper()
		s := newStringSet(0, func(int64) error { return nil })
		want := map[string]struct{}{}
		for _, v := range in {
			want[v] = struct{}{}
			if err := s.add([]byte(v)); err != nil {
				t.Fatal(err)
			}
		}
		sorted := slices.Sorted(maps.Keys(want))
		if limit > 0 && len(sorted) > limit {
			sorted = sorted[:limit]
		}
		if diff := cmp.Diff(sorted, s.sorted(limit)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
	f("nothing", 0)
	f("the empty string", 0, "", "")
	f("ascending", 0, "", "a", "a", "aa", "b")
	f("ascending at first", 0, "a", "b", "d", "c", "a", "d", "e")
	f("descending", 0, "c", "b", "a", "")
	f("limited", 2, "c", "b", "a", "b")
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

// TestStringSetReservesWhatItTakes: a set of many values, with the answer's strings and the
// message, takes no more than it has reserved and the rest of a piece, and more than a third of
// that. What is refused ends it.
func TestStringSetReservesWhatItTakes(t *testing.T) {
	f := func(name string, n int, value func(i int) string) {
		t.Helper()
		before := heap()
		reserved := int64(0)
		s := newStringSet(0, func(n int64) error { reserved += n; return nil })
		text := int64(0)
		for i := range n {
			v := value(i)
			text += int64(len(v)) + 3 // in the message: with tag and length
			if err := s.add([]byte(v)); err != nil {
				t.Fatal(err)
			}
		}
		// and half as much while it grows, which the answer makes up for later
		table := int64(4 * len(s.table))
		out := s.sorted(0)
		took := int64(heap()-before) + table + text
		runtime.KeepAlive(out)
		if took > reserved+maxSetPiece || took < reserved/3 {
			t.Errorf("%s: %d values took %d bytes, reserved %d", name, len(out), took, reserved)
		}
	}
	f("ascending", 300_000, func(i int) string { return fmt.Sprintf("%09d", i) })
	f("short", 300_000, func(i int) string { return fmt.Sprintf("%x", uint32(i)*2654435769) })
	f(
		"long", 30_000,
		func(i int) string { return fmt.Sprintf("%x-%0200d", uint32(i)*2654435769, i) },
	)

	full := errors.New("full")
	s := newStringSet(stringSetCost(1), func(int64) error { return full })
	if err := s.add([]byte("a")); err != nil {
		t.Errorf("got %v for what was reserved", err)
	}
	if err := s.add([]byte("b")); !errors.Is(err, full) {
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
