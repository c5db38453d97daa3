package block

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"

	"larder/store/storepb"
)

// symbolList is a symbolSource over a sorted list, as an index of format V2 has it.
type symbolList []string

func (l symbolList) Symbols(_ context.Context, refs []uint32, f func(int, []byte) error) error {
	for i, ref := range refs {
		if int(ref) >= len(l) {
			return fmt.Errorf("symbol %d of %d", ref, len(l))
		}
		if err := f(i, []byte(l[ref])); err != nil {
			return err
		}
	}
	return nil
}

// finalOrder runs series, which are sorted and distinct, through the symbols, reorder and layout of
// a stream, in segments of the given size, and returns the final label sets as text, in the order
// in which they come out.
func finalOrder(
	t *testing.T, series []labels.Labels, external labels.Labels, dropped []string, perSegment int,
) (out []string, clash bool) {
	t.Helper()
	var syms symbolList
	var names []string
	for _, ls := range series {
		ls.Range(func(l labels.Label) {
			syms = append(syms, l.Name, l.Value)
			names = append(names, l.Name)
		})
	}
	slices.Sort(syms)
	syms = slices.Compact(syms)
	slices.Sort(names)
	names = slices.Compact(names)
	ref := func(s string) uint32 {
		i, _ := slices.BinarySearch(syms, s)
		return uint32(i)
	}

	s := &Stream{names: newNameRules(names, external, dropped)}
	s.lay = newLayout(&s.names, 1<<20)
	s.syms.limit = 1 << 20
	s.order.largest = s.names.largest()
	for at := 0; at < len(series); {
		s.startSegment()
		held := s.raw.len()
		for range perSegment {
			if at == len(series) {
				break
			}
			series[at].Range(func(l labels.Label) {
				s.raw.slots = append(
					s.raw.slots, s.syms.slot(ref(l.Name)), s.syms.slot(ref(l.Value)),
				)
			})
			s.raw.endSeries(uint32(at))
			at++
		}
		if _, err := s.syms.resolve(context.Background(), syms); err != nil {
			t.Fatal(err)
		}
		s.order.run(&s.raw, &s.syms, held, at == len(series))
		seg, left, err := s.lay.segment(&s.raw, &s.syms, s.order.out, 0, nil, true, nil)
		if err != nil || len(left) > 0 {
			t.Fatalf("%d series left, %v", len(left), err)
		}
		for i := range seg.Len() {
			out = append(out, decodeLabels(t, seg.Labels(i)).String())
		}
		if at%29 == 0 {
			s.syms.arena = append(s.syms.arena, make([]byte, s.syms.limit+1)...) // forces a reset
		}
	}
	return out, s.names.clash
}

func decodeLabels(t testing.TB, b []byte) labels.Labels {
	t.Helper()
	var sb labels.ScratchBuilder
	for len(b) > 0 {
		name, value, rest, ok := storepb.NextLabel(b)
		if !ok {
			t.Fatalf("label bytes %x do not parse", b)
		}
		sb.Add(string(name), string(value))
		b = rest
	}
	return sb.Labels()
}

// wantOrder sorts the final label sets with labels.Compare.
func wantOrder(series []labels.Labels, external labels.Labels, dropped []string) []string {
	var sets []labels.Labels
	for _, ls := range series {
		var kept []labels.Label
		ls.Range(func(l labels.Label) {
			if !external.Has(l.Name) && !slices.Contains(dropped, l.Name) {
				kept = append(kept, l)
			}
		})
		external.Range(func(l labels.Label) { kept = append(kept, l) })
		slices.SortFunc(kept, func(a, b labels.Label) int { return cmpString(a.Name, b.Name) })
		sb := labels.NewScratchBuilder(len(kept))
		for _, l := range kept {
			sb.Add(l.Name, l.Value)
		}
		sets = append(sets, sb.Labels())
	}
	slices.SortStableFunc(sets, labels.Compare)
	var out []string
	for _, s := range sets {
		out = append(out, s.String())
	}
	return out
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// randomSeries returns sorted, distinct label sets that nest deeply: few names, few values, empty
// values and UTF-8 among them.
func randomSeries(r *rand.Rand, n int) []labels.Labels {
	names := []string{"a", "aa", "ab", "b", "m", "mm", "z", "zz", "ä", "𝛼"}
	values := []string{"0", "1", "x", "xx", "ü"}
	var out []labels.Labels
	for range n {
		sb := labels.NewScratchBuilder(4)
		if len(out) > 0 && r.IntN(2) == 0 {
			// Extend an earlier one: prefix chains.
			out[r.IntN(len(out))].Range(func(l labels.Label) { sb.Add(l.Name, l.Value) })
		}
		base := sb.Labels()
		last := ""
		base.Range(func(l labels.Label) { last = l.Name })
		sb.Reset()
		base.Range(func(l labels.Label) { sb.Add(l.Name, l.Value) })
		for _, name := range names {
			if name > last && r.IntN(4) == 0 {
				sb.Add(name, values[r.IntN(len(values))])
			}
		}
		out = append(out, sb.Labels())
	}
	slices.SortFunc(out, labels.Compare)
	return slices.CompactFunc(
		out, func(a, b labels.Labels) bool { return labels.Compare(a, b) == 0 },
	)
}

// randomExternal returns external labels whose names do not occur in randomSeries.
func randomExternal(r *rand.Rand) labels.Labels {
	sb := labels.NewScratchBuilder(3)
	for _, name := range []string{"A", "ac", "l", "n", "o", "zzz", "é", "𝛽"} {
		if r.IntN(3) == 0 {
			sb.Add(name, "e"+name)
		}
	}
	sb.Sort()
	return sb.Labels()
}

func checkOrder(t *testing.T, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	series := randomSeries(r, 1+r.IntN(60))
	external := randomExternal(r)
	var dropped []string
	if r.IntN(2) == 0 {
		dropped = []string{"absent", "replica"}
	}
	got, clash := finalOrder(t, series, external, dropped, 1+r.IntN(20))
	if clash {
		t.Fatalf("seed %d: clash without a common name", seed)
	}
	if diff := cmp.Diff(wantOrder(series, external, dropped), got); diff != "" {
		t.Fatalf("seed %d, external %s: order (-want +got):\n%s", seed, external, diff)
	}
}

func TestOrderIsThatOfFinalLabels(t *testing.T) {
	for seed := range uint64(5_000) {
		checkOrder(t, seed)
	}
}

func FuzzOrder(f *testing.F) {
	for seed := range uint64(64) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { checkOrder(t, seed) })
}

// TestOrderNeedsSorting checks that names which occur both in the block and outside are told, and
// that the layout then overrides and drops them.
func TestOrderNeedsSorting(t *testing.T) {
	series := []labels.Labels{
		labels.FromStrings("a", "1", "replica", "x"),
		labels.FromStrings("a", "1", "replica", "y", "z", "1"),
		labels.FromStrings("a", "2", "region", "inside"),
	}
	for _, tc := range []struct {
		external labels.Labels
		dropped  []string
		want     []string
	}{
		{labels.FromStrings("region", "out"), nil, []string{
			`{a="1", region="out", replica="x"}`, `{a="1", region="out", replica="y", z="1"}`,
			`{a="2", region="out"}`,
		}},
		{labels.EmptyLabels(), []string{"replica"}, []string{
			`{a="1"}`, `{a="1", z="1"}`, `{a="2", region="inside"}`,
		}},
		{labels.FromStrings("a", "0"), []string{"region"}, []string{
			`{a="0", replica="x"}`, `{a="0", replica="y", z="1"}`, `{a="0"}`,
		}},
	} {
		got, clash := finalOrder(t, series, tc.external, tc.dropped, 2)
		if !clash {
			t.Errorf("external %s, dropped %v: no clash", tc.external, tc.dropped)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("external %s, dropped %v (-want +got):\n%s", tc.external, tc.dropped, diff)
		}
	}
}

func TestOrderHoldsNoMoreThanNests(t *testing.T) {
	// All of a chain of prefixes is held back, but only one series of a flat list of any length.
	var flat []labels.Labels
	for i := range 1000 {
		flat = append(flat, labels.FromStrings("a", fmt.Sprintf("%04d", i)))
	}
	s := &Stream{names: newNameRules([]string{"a"}, labels.FromStrings("z", "1"), nil)}
	s.order.largest = s.names.largest()
	var syms symbolList
	for _, ls := range flat {
		syms = append(syms, ls.Get("a"))
	}
	syms = append(syms, "a")
	for i := range flat {
		s.raw.slots = append(s.raw.slots, s.syms.slot(uint32(len(syms)-1)), s.syms.slot(uint32(i)))
		s.raw.endSeries(uint32(i))
	}
	if _, err := s.syms.resolve(context.Background(), syms); err != nil {
		t.Fatal(err)
	}
	s.order.run(&s.raw, &s.syms, 0, false)
	if len(s.order.stack) != 1 {
		t.Errorf("held back %d series of a flat list, want 1", len(s.order.stack))
	}
}
