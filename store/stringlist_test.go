package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"larder/store/storepb"
)

func listOf(in ...string) (out stringList) {
	for _, s := range slices.Compact(slices.Sorted(slices.Values(in))) {
		out = storepb.AppendString(out, s)
	}
	return out
}

func TestUnite(t *testing.T) {
	f := func(a, b stringList) {
		t.Helper()
		want := listOf(append(a.strings(), b.strings()...)...)
		copyA, copyB := slices.Clone(a), slices.Clone(b)
		if diff := cmp.Diff(want.strings(), unite(a, b).strings()); diff != "" {
			t.Errorf("%q and %q: (-want +got)\n%s", a.strings(), b.strings(), diff)
		}
		if !slices.Equal(a, copyA) || !slices.Equal(b, copyB) {
			t.Error("a list that was united has changed")
		}
	}
	f(nil, nil)
	f(nil, listOf(""))
	f(listOf("a", "c"), listOf("b"))
	f(listOf("a", "c"), listOf("c", "d", "e"))
	f(listOf("b", "c"), listOf("a", "b"))
	f(listOf("a"), listOf("", "a", "b"))
	rng := rand.New(rand.NewPCG(1, 2))
	random := func() stringList {
		in := make([]string, rng.IntN(40))
		for i := range in {
			in[i] = fmt.Sprintf("%0*d", 1+rng.IntN(200)*rng.IntN(2), rng.IntN(60))
		}
		return listOf(in...)
	}
	for range 2000 {
		f(random(), random())
	}
	// A list that has all strings is not copied.
	all := listOf("a", "b", "c")
	if got := unite(listOf("a", "c"), all); &got[0] != &all[0] {
		t.Error("a list was copied though the other one adds nothing")
	}
}

// TestUnion shows that a union has the strings of all lists, and that the bytes reserved for it
// never exceed six times the answer, however many lists there are.
func TestUnion(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine: the race detector cannot find anything")
	}
	rng := rand.New(rand.NewPCG(1, 3))
	for _, c := range []struct {
		name  string
		lists int
		value func(list, i int) string
	}{
		{"equal lists", 300, func(_, i int) string { return fmt.Sprintf("value-%06d", i) }},
		{"different lists", 300, func(list, i int) string {
			return fmt.Sprintf("value-%06d", 1000*i+list)
		}},
		{"overlapping lists", 300, func(list, i int) string {
			return fmt.Sprintf("value-%06d", i+list*rng.IntN(3))
		}},
		{"growing lists", 40, func(list, i int) string {
			return fmt.Sprintf("value-%06d", i%(25*list+1))
		}},
	} {
		reserved, most := int64(0), int64(0)
		bytes := &labelBytes{}
		bytes.grow = func(n int64) error { reserved += n; return nil }
		u := newUnion(bytes)
		want := map[string]struct{}{}
		for list := range c.lists {
			var in []string
			for i := range 1000 {
				in = append(in, c.value(list, i))
				want[in[i]] = struct{}{}
			}
			if list%7 == 3 { // a block with very many strings
				set := newStringSet(bytes)
				for _, s := range in {
					if err := set.add([]byte(s)); err != nil {
						t.Fatal(err)
					}
				}
				if err := u.share(set.moveTo); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if err := u.addKept(listOf(in...)); err != nil {
				t.Fatal(err)
			}
			most = max(most, reserved-bytes.free)
		}
		got, err := u.all()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), got.strings()); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
		set := int64(len(want)) * stringSetCost(12)
		if limit := 6*int64(len(got)) + set + 2*labelBytesStep; most > limit {
			t.Errorf("%s: %d bytes reserved for an answer of %d", c.name, most, len(got))
		}
		if used := reserved - bytes.free; used != int64(cap(got)) {
			t.Errorf("%s: %d bytes stay reserved, want %d", c.name, used, cap(got))
		}
	}
	full := errors.New("full")
	u := newUnion(&labelBytes{free: 10, grow: func(int64) error { return full }})
	if err := u.addKept(listOf("0123456789")); !errors.Is(err, full) {
		t.Errorf("got %v, want that it is full", err)
	}
}

// TestClip shows that a list that is cut short does not keep what was cut off in memory.
func TestClip(t *testing.T) {
	list := listOf("a", "b", "c", "d", "e", "f", "g", "h")
	short := clip(list.first(1), cap(list))
	if diff := cmp.Diff([]string{"a"}, short.strings()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if cap(short) >= cap(list) || &short[0] == &list[0] {
		t.Errorf("the first of %d strings keeps %d bytes", 8, cap(short))
	}
	list = slices.Clip(list)
	if same := clip(list, cap(list)); &same[0] != &list[0] {
		t.Error("a list without spare capacity was copied")
	}
}
