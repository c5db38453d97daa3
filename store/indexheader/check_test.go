package indexheader

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/tsdbfmt"
	"larder/store/storepb"
)

// model has the contents of an index according to Prometheus's reader.
type model struct {
	version int
	size    int64
	toc     tsdbfmt.TOC
	names   []string
	values  map[string][]string
	lists   map[labels.Label]List // exact: from the length prefix to the end of the checksum
	starts  []int64
	refs    []uint32
	symbols []string
}

func modelOf(t testing.TB, b []byte) *model {
	t.Helper()
	r := rawReader(t, b)
	ctx := context.Background()
	m := &model{
		version: int(b[4]),
		size:    int64(len(b)),
		values:  map[string][]string{},
		lists:   map[labels.Label]List{},
	}
	var err error
	if m.toc, err = tsdbfmt.ParseTOC(b, b, int64(len(b))); err != nil {
		t.Fatal(err)
	}
	ranges, err := r.PostingsRanges()
	if err != nil {
		t.Fatal(err)
	}
	for l, rng := range ranges {
		m.lists[l] = List{Off: rng.Start - 4, End: rng.End + 4}
		m.starts = append(m.starts, rng.Start-4)
		m.values[l.Name] = append(m.values[l.Name], l.Value)
	}
	for _, v := range m.values {
		sort.Strings(v)
	}
	slices.Sort(m.starts)
	m.starts = slices.Compact(m.starts)
	if m.names, err = r.LabelNames(ctx); err != nil {
		t.Fatal(err)
	}
	off := m.toc.Symbols + 8
	it := r.Symbols()
	for i := 0; it.Next(); i++ {
		s := it.At()
		m.symbols = append(m.symbols, string([]byte(s)))
		if m.version == 1 {
			m.refs = append(m.refs, uint32(off))
			off += int64(len(binary.AppendUvarint(nil, uint64(len(s)))) + len(s))
		} else {
			m.refs = append(m.refs, uint32(i))
		}
	}
	return m
}

// want returns the list of a value as a header returns it: it ends at the start of the next entry
// or section.
func (m *model) want(name, value string) List {
	l, ok := m.lists[labels.Label{Name: name, Value: value}]
	if !ok {
		return List{}
	}
	end := m.toc.SectionEnd(l.Off, m.size)
	if i := sort.Search(len(m.starts), func(i int) bool { return m.starts[i] > l.Off }); i < len(
		m.starts,
	) {
		end = min(end, m.starts[i])
	}
	return List{Off: l.Off, End: end}
}

// check compares all answers of a header with the model.
func (m *model) check(h *Header, rnd *rand.Rand) error {
	ctx := context.Background()
	if h.IndexVersion() != m.version || h.IndexSize() != m.size || h.TOC() != m.toc {
		return fmt.Errorf("version %d, size %d, %+v", h.IndexVersion(), h.IndexSize(), h.TOC())
	}
	if diff := cmp.Diff(m.names, h.LabelNames()); diff != "" &&
		len(m.names)+len(h.LabelNames()) > 0 {
		return fmt.Errorf("label names: %s", diff)
	}
	if got, want := h.AllPostings(), m.want("", ""); got != want {
		return fmt.Errorf("all postings %v, want %v", got, want)
	}
	for name, values := range m.values {
		if got := h.ValueCount(name); got != len(values) {
			return fmt.Errorf("%q has %d values, want %d", name, got, len(values))
		}
		if err := m.checkValues(ctx, h, name, values, rnd); err != nil {
			return fmt.Errorf("label %q: %w", name, err)
		}
	}
	if n := h.ValueCount("no such name"); n != 0 {
		return fmt.Errorf("%d values of no such name", n)
	}
	got, err := h.Lists(ctx, "no such name", []string{"a", "b"}, nil)
	if err != nil || len(got) != 2 || got[0] != (List{}) || got[1] != (List{}) {
		return fmt.Errorf("lists of no such name: %v, %v", got, err)
	}
	return m.checkSymbols(ctx, h, rnd)
}

// checkStrings appends the values of a label to something. It calls grown, unless nil, each time
// that it needs space, which it gets for a few values at a time.
func checkStrings(
	ctx context.Context, h *Header, name string, values []string, grown func(),
) error {
	const before = "something"
	got, err := h.AppendStrings(ctx, name, []byte(before), func(b []byte, n int) ([]byte, error) {
		if grown != nil {
			grown()
		}
		return slices.Grow(b, n+1000), nil
	})
	if err != nil {
		return err
	}
	want := []byte(before)
	for _, v := range values {
		want = storepb.AppendString(want, v)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%d bytes of strings, want %d: %q", len(got), len(want), clip(got))
	}
	return nil
}

func (m *model) checkValues(
	ctx context.Context, h *Header, name string, values []string, rnd *rand.Rand,
) error {
	for _, from := range []string{"", values[rnd.IntN(len(values))],
		values[rnd.IntN(len(values))] + "\x00", "\xff\xff\xff"} {
		i := sort.SearchStrings(values, from)
		err := h.Values(ctx, name, from, func(v []byte, l List) (bool, error) {
			if i >= len(values) || string(v) != values[i] {
				return false, fmt.Errorf("value %d from %q is %q", i, from, clip(v))
			}
			if want := m.want(name, values[i]); l != want {
				return false, fmt.Errorf("list of %q is %v, want %v", clip(v), l, want)
			}
			if exact := m.lists[labels.Label{Name: name, Value: values[i]}]; l.End < exact.End {
				return false, fmt.Errorf("list of %q is %v, shorter than %v", clip(v), l, exact)
			}
			i++
			return true, nil
		})
		if err != nil {
			return err
		}
		if i != len(values) {
			return fmt.Errorf("%d values from %q, want %d", i, from, len(values))
		}
	}
	if err := checkStrings(ctx, h, name, values, nil); err != nil {
		return err
	}
	for _, some := range [][]string{pick(rnd, values, 1), pick(rnd, values, 0.5),
		pick(rnd, values, 0.02)} {
		var ask []string
		for _, v := range some {
			ask = append(ask, v)
			switch rnd.IntN(10) {
			case 0:
				ask = append(ask, v+"\x00") // usually missing
			case 1:
				ask = append(ask, v[:len(v)/2])
			}
		}
		slices.Sort(ask)
		ask = slices.Compact(ask)
		got, err := h.Lists(ctx, name, ask, []List{{1, 2}})
		if err != nil {
			return err
		}
		if len(got) != len(ask)+1 || got[0] != (List{1, 2}) {
			return fmt.Errorf("%d lists for %d values", len(got), len(ask))
		}
		for i, v := range ask {
			if want := m.want(name, v); got[i+1] != want {
				return fmt.Errorf("list of %q is %v, want %v", v[:min(len(v), 64)], got[i+1], want)
			}
		}
	}
	return nil
}

func (m *model) checkSymbols(ctx context.Context, h *Header, rnd *rand.Rand) error {
	for _, share := range []float64{1, 0.3, 0.01} {
		var refs []uint32
		var want []string
		for i, ref := range m.refs {
			if rnd.Float64() < share {
				refs = append(refs, ref)
				want = append(want, m.symbols[i])
			}
		}
		n := 0
		err := h.Symbols(ctx, refs, func(i int, s []byte) error {
			if i != n || string(s) != want[i] {
				return fmt.Errorf(
					"symbol %d (%d.) is %q, want %q", i, n, clip(s),
					want[i][:min(64, len(want[i]))],
				)
			}
			n++
			return nil
		})
		if err != nil {
			return err
		}
		if n != len(refs) {
			return fmt.Errorf("%d of %d symbols", n, len(refs))
		}
	}
	none := func(int, []byte) error { return nil }
	for _, ref := range []uint32{m.refsEnd(), m.refsEnd() + 1, 1<<32 - 1} {
		if err := h.Symbols(ctx, []uint32{ref}, none); err == nil {
			return fmt.Errorf("symbol %d exists", ref)
		}
	}
	if m.version == 1 {
		for _, ref := range []uint32{0, 12} {
			if err := h.Symbols(ctx, []uint32{ref}, none); err == nil {
				return fmt.Errorf("symbol at byte %d exists", ref)
			}
		}
	}
	return nil
}

// refsEnd returns a reference after the last symbol.
func (m *model) refsEnd() uint32 {
	if len(m.refs) == 0 {
		return 0
	}
	return m.refs[len(m.refs)-1] + 1
}

func pick(rnd *rand.Rand, values []string, share float64) []string {
	var out []string
	for _, v := range values {
		if rnd.Float64() < share {
			out = append(out, v)
		}
	}
	return out
}
