package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"larder/benchmarks/rawindex"
	"larder/store/catalog"
)

// irregularSeries returns stored series in any order. Some have labels that are out of order,
// repeated or empty, and some occur several times.
func irregularSeries(r *rand.Rand) []rawindex.Series {
	names, values := []string{"a", "aa", "b", "m", "zz"}, []string{"", "0", "1", "x"}
	off := uint64(8)
	var out []rawindex.Series
	for range 1 + r.IntN(60) {
		var s rawindex.Series
		if len(out) > 0 && r.IntN(5) == 0 {
			s.Labels = slices.Clone(out[r.IntN(len(out))].Labels)
			r.Shuffle(
				len(s.Labels),
				func(i, j int) { s.Labels[i], s.Labels[j] = s.Labels[j], s.Labels[i] },
			)
		} else {
			for range 1 + r.IntN(4) {
				name, value := names[r.IntN(len(names))], values[r.IntN(len(values))]
				s.Labels = append(s.Labels, rawindex.Label{Name: name, Value: value})
			}
		}
		at := int64(r.IntN(300))
		for range r.IntN(4) {
			s.Chunks = append(
				s.Chunks, rawindex.Chunk{Ref: off, MinTime: at, MaxTime: at + int64(r.IntN(100))},
			)
			off += 100
			at += int64(r.IntN(400)) - 150
		}
		out = append(out, s)
	}
	return out
}

// storedMatches reports whether Thanos finds a stored series by matchers, each of a name of its
// own: the lists of a name's values have the series once for each of them.
func storedMatches(s rawindex.Series, ms []*labels.Matcher) bool {
	for _, m := range ms {
		selected, other := false, false
		for _, l := range s.Labels {
			if l.Name == m.Name {
				selected, other = selected || m.Matches(l.Value), other || !m.Matches(l.Value)
			}
		}
		if m.Matches("") && other || !m.Matches("") && !selected {
			return false
		}
	}
	return true
}

// wantIrregular computes an answer from the stored series.
func wantIrregular(series []rawindex.Series, c *setCase) []streamed {
	type item struct {
		ls labels.Labels
		s  streamed
	}
	var items []item
	for _, s := range series {
		if !storedMatches(s, c.ms) {
			continue
		}
		it := item{}
		for _, m := range s.Chunks {
			if m.MinTime > c.MaxTime {
				break
			}
			if m.MaxTime >= c.MinTime {
				it.s.Ref, it.s.Min, it.s.Max = append(
					it.s.Ref, m.Ref,
				), append(
					it.s.Min, m.MinTime,
				), append(
					it.s.Max, m.MaxTime,
				)
			}
		}
		if it.s.Ref == nil {
			continue
		}
		b := labels.NewBuilder(labels.EmptyLabels())
		for _, l := range s.Labels {
			b.Set(l.Name, l.Value)
		}
		c.External.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		for _, name := range c.Dropped {
			if !c.External.Has(name) {
				b.Del(name)
			}
		}
		it.ls = b.Labels()
		it.s.Labels = it.ls.String()
		if c.SkipChunks {
			it.s.Ref, it.s.Min, it.s.Max = nil, nil, nil
		}
		items = append(items, it)
	}
	slices.SortStableFunc(items, func(a, b item) int { return labels.Compare(a.ls, b.ls) })
	var out []streamed
	for _, it := range items {
		out = append(out, it.s)
	}
	return out
}

func randomIrregularCase(r *rand.Rand) *setCase {
	c := &setCase{streamCase: randomStreamCase(r)}
	c.SkipChunks = r.IntN(4) == 0
	c.ms = []*labels.Matcher{everything()}
	if r.IntN(3) > 0 {
		m := []string{"0|1", "x.*", "[^0]+|", ".*0"}[r.IntN(4)]
		c.ms = append(c.ms, labels.MustNewMatcher(labels.MatchType(2+r.IntN(2)), "m", m))
	}
	if r.IntN(3) > 0 {
		c.ms = append(
			c.ms,
			labels.MustNewMatcher(
				labels.MatchType(r.IntN(2)), "a", []string{"1", "0", "x"}[r.IntN(3)],
			),
		)
	}
	return c
}

// askTwice plans and reads a request, again if the block is found irregular. begun reports whether
// series were returned before that.
func askTwice(
	t *testing.T, b *Block, c *setCase, use SetUse, start func(a *asking),
) (got *heard, found, begun bool) {
	t.Helper()
	for try := range 2 {
		a := ask(t, b, c, use)
		start(a)
		for !a.over {
			a.step()
		}
		var irregular *IrregularError
		if try == 0 && errors.As(a.err, &irregular) {
			found, begun = true, len(a.heard.Series) > 0
			continue
		}
		return a.rest(), found, begun
	}
	t.Fatal("unreachable")
	return nil, false, false
}

// TestIrregularBlocks sends random requests to irregular blocks. Answers are those of Thanos, with
// and without series sets, and in as many passes as the bytes for sorting require.
func TestIrregularBlocks(t *testing.T) {
	trials := 150
	if testing.Short() {
		trials = 50
	}
	found, passes, kept := 0, 0, 0
	for seed := range uint64(trials) {
		r := rand.New(rand.NewPCG(seed, 5))
		series := irregularSeries(r)
		data, err := rawindex.Encode(series)
		if err != nil {
			t.Fatal(err)
		}
		plain, _ := openStreamBlock(t, data, 512, catalog.Block{MinTime: 0, MaxTime: 2000})
		b := withSets(plain, testSets(t, 8<<20))
		for range 6 {
			c := randomIrregularCase(r)
			want := wantIrregular(series, c)
			if len(want) == 0 {
				want = nil
			}
			check := func(how string, got []streamed) {
				t.Helper()
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf(
						"seed %d, %s, %v, %+v (-want +got):\n%s", seed, how, c.ms, c.streamCase,
						diff,
					)
				}
			}
			read, f, begun := askTwice(t, plain, c, UseNoSets, func(a *asking) { a.start(0) })
			check("read", read.Series)
			if begun {
				t.Errorf("seed %d: a stream returned series, "+
					"then found the block irregular in its first segment", seed)
			}
			if f {
				found++
			}
			for range 2 {
				got, _, _ := askTwice(
					t, b, c, BuildSets, func(a *asking) { a.start(1 + r.IntN(3)) },
				)
				check("set", got.Series)
			}
			kept += int(b.deps.Sets.Stats().Items)

			// As few bytes as a few series take: the rest of a pass is dropped, and the next pass
			// brings it.
			var sorted *seriesSorter
			bytes := testReserver{noMore: true}
			got, _, _ := askTwice(t, plain, c, UseNoSets, func(a *asking) {
				c := *c
				c.Reserver = &bytes
				a.c = &c
				a.start(0)
				if s, ok := a.stream.(*Stream); ok && s.sorted != nil {
					s.maxSeries, s.maxEntryBytes = 1+r.IntN(5), 200
					s.sorted.own = int64(300 + r.IntN(3000))
					sorted = s.sorted
				}
			})
			check("passes", got.Series)
			if diff := cmp.Diff(read, got); diff != "" && !f {
				t.Fatalf("seed %d: passes count otherwise (-one +many):\n%s", seed, diff)
			}
			if sorted != nil {
				passes = max(passes, sorted.passes)
			}
			if bytes.reserved != 0 {
				t.Errorf("seed %d: %d bytes are still reserved after Close", seed, bytes.reserved)
			}
		}
	}
	t.Logf(
		"%d requests found their block irregular, %d passes at most, %d sets kept", found, passes,
		kept,
	)
	if found < trials/2 || passes < 3 || kept == 0 {
		t.Error("too little was tested")
	}
}

// memory of findings, as irregular.Blocks is.
type findings map[uint64]string

func (f findings) What(
	_ ulid.ULID, content uint64,
) (string, bool) {
	w, ok := f[content]
	return w, ok
}
func (f findings) Note(_ ulid.ULID, content uint64, what string) { f[content] = what }

// TestIrregularityIsNamed checks that each property that streaming depends on has an error which
// names the place, and which is remembered for the content of the block. A regular block has none.
func TestIrregularityIsNamed(t *testing.T) {
	label := func(pairs ...string) (out []rawindex.Label) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, rawindex.Label{Name: pairs[i], Value: pairs[i+1]})
		}
		return out
	}
	f := func(want string, sets ...[]rawindex.Label) {
		t.Helper()
		var series []rawindex.Series
		for i, s := range sets {
			series = append(
				series,
				rawindex.Series{
					Labels: s,
					Chunks: []rawindex.Chunk{{Ref: 8 + uint64(i)*100, MaxTime: 10}},
				},
			)
		}
		data, err := rawindex.Encode(series)
		if err != nil {
			t.Fatal(err)
		}
		known := findings{}
		open := func() *Block {
			b, _ := openStreamBlock(t, data, 512, catalog.Block{Content: 7})
			b.deps.Irregular = known
			return New(b.meta, b.deps)
		}
		read := func(b *Block) error {
			p, err := b.Plan(context.Background(), []*labels.Matcher{everything()}, PlanOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			s := p.Stream(context.Background(), StreamOptions{MaxTime: 100})
			defer s.Close()
			for {
				if _, err := s.Next(); err != nil {
					return err
				}
			}
		}
		b := open()
		err = read(b)
		var irregular *IrregularError
		switch {
		case want == "":
			if err != io.EOF || len(known) > 0 {
				t.Errorf("a regular block: got error %v, noted %v", err, known)
			}
			return
		case !errors.As(err, &irregular) || irregular.What != want || known[7] != want:
			t.Errorf("%v, noted %q, want %q", err, known[7], want)
		}
		entry := fmt.Sprintf("block %s: object BLOCK/index: series entry at offset ", b.meta.ID)
		if err != nil && !strings.HasPrefix(err.Error(), entry) {
			t.Errorf("error %q does not begin with %q", err, entry)
		}
		if err := read(b); err != io.EOF {
			t.Errorf("the next read: got %v, want io.EOF", err)
		}
		if err := read(open()); err != io.EOF {
			t.Errorf("a read in another process: got %v, want io.EOF", err)
		}
	}
	f(
		"", label("a", "1"), label("a", "1", "b", "1"), label("a", "1", "c", "1"), label("a", "2"),
		label("b", "1"),
	)
	f(labelsDisordered, label("a", "1"), label("b", "1", "a", "1"))
	f(labelsDisordered, label("a", "1", "a", "2"))
	f(labelsDisordered, label("a", "1", "b", "2"), label("a", "1", "b", "2", "b", "3"))
	f(emptyValue, label("a", "1"), label("a", "1", "b", ""))
	f(seriesDisordered, label("b", "1"), label("a", "1"))
	f(seriesDisordered, label("a", "1"), label("a", "1"))
	f(seriesDisordered, label("a", "1", "b", "1"), label("a", "1"))
}

// TestABuildSortsInWhatItsReaderReserved checks that the construction of a set sorts within the
// bytes that its reader has reserved, because many blocks share those of a request.
func TestABuildSortsInWhatItsReaderReserved(t *testing.T) {
	var series []rawindex.Series
	for i := range 2000 {
		series = append(series, rawindex.Series{
			Labels: []rawindex.Label{{Name: "a", Value: fmt.Sprint(9999 - i)}},
			Chunks: []rawindex.Chunk{{Ref: 8 + uint64(i)*100, MaxTime: 10}},
		})
	}
	data, err := rawindex.Encode(series)
	if err != nil {
		t.Fatal(err)
	}
	plain, _ := openStreamBlock(t, data, 512, catalog.Block{MaxTime: 2000})
	plain.noteIrregular(seriesDisordered)
	b := withSets(plain, testSets(t, 256<<20))
	b.noteIrregular(seriesDisordered)
	c := &setCase{ms: []*labels.Matcher{everything()}}
	c.MaxTime, c.RunBytes = 2000, 4096
	a := ask(t, b, c, BuildSets).start(0)
	n := a.plan.build
	a.step()
	reserved := a.plan.sortBytes(c.RunBytes)
	if n.stream == nil || n.stream.sorted.own > reserved {
		t.Errorf(
			"the construction sorts in %d bytes of its own, its reader has reserved %d",
			n.stream.sorted.own, reserved,
		)
	}
	if got := a.rest(); len(got.Series) != len(series) {
		t.Errorf("%d series, want %d", len(got.Series), len(series))
	}
}
