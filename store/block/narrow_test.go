package block

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"

	"larder/benchmarks/rawindex"
	"larder/store/catalog"
	"larder/store/storepb"
)

// collected returns the strings that the series of a stream have, sorted: label names if label is
// empty, otherwise the values of label.
func collected(t *testing.T, s SeriesStream, label string) (out []string, series int, err error) {
	t.Helper()
	defer s.Close()
	for {
		seg, err := s.Next()
		if errors.Is(err, io.EOF) {
			slices.Sort(out)
			return slices.Compact(out), series, nil
		}
		if err != nil {
			return nil, 0, err
		}
		series += seg.Len()
		for i := range seg.Len() {
			for b := seg.Labels(i); ; {
				name, value, rest, ok := storepb.NextLabel(b)
				if !ok {
					break
				}
				if label == "" {
					out = append(out, string(name))
				} else if string(name) == label {
					out = append(out, string(value))
				}
				b = rest
			}
		}
	}
}

// TestNarrowedStreamsHaveAllStrings compares the strings of narrowed streams with those of complete
// ones, on random blocks, with and without pending matchers, with tables too small for the symbols.
func TestNarrowedStreamsHaveAllStrings(t *testing.T) {
	lessSeries, pending := 0, 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 11))
		sets := slices.DeleteFunc(randomSeries(r, 1+r.IntN(200)), labels.Labels.IsEmpty)
		if len(sets) == 0 {
			continue
		}
		pick := func(of ...int64) int64 { return of[r.IntN(len(of))] }
		b, _ := openStreamBlock(
			t, writeStreamIndex(t, randomChunks(r, sets)), int(pick(512, 8192)),
			catalog.Block{SeriesMaxSize: pick(0, 30)},
		)
		for range 6 {
			c := randomStreamCase(r)
			c.SkipChunks = true
			ms := []*labels.Matcher{everything()}
			lazy := r.IntN(2) == 0
			if lazy {
				ms = []*labels.Matcher{labels.MustNewMatcher(
					labels.MatchRegexp, "m", []string{".*", "[^y]+|", "x+|", "0|1"}[r.IntN(4)],
				)}
				pending++
			}
			label := []string{"", "a", "aa", "m", "x", "zz", "absent"}[r.IntN(7)]
			if c.External.Has(label) {
				label = ""
			}
			sizes := [3]int64{pick(1, 3, 17, segmentSeries), pick(1, 50, segmentEntryBytes),
				pick(0, 40, 1<<20)}
			ask := func(collect Collect) ([]string, int, int) {
				counted := 0
				c.Collect = collect
				c.OnSeries = func(n int) error { counted += n; return nil }
				p := planStream(t, b, ms, lazy)
				defer p.Close()
				p.unordered, p.external, p.dropped = true, c.External, c.Dropped
				s := p.Stream(context.Background(), c.StreamOptions).(*Stream)
				s.maxSeries, s.maxEntryBytes = int(sizes[0]), int(sizes[1])
				s.syms.limit = sizes[2]
				out, series, err := collected(t, s, label)
				if err != nil {
					t.Fatal(err)
				}
				return out, series, counted
			}
			want, all, counted := ask(Collect{})
			got, some, gotCounted := ask(Collect{Names: label == "", Label: label})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("seed %d, label %q, %v, lazy %v, %+v (-want +got):\n%s",
					seed, label, ms, lazy, c, diff)
			}
			if counted != gotCounted {
				t.Errorf("seed %d: %d series counted, want %d", seed, gotCounted, counted)
			}
			if some < all {
				lessSeries++
			}
		}
	}
	t.Logf("%d answers from fewer series, %d with pending matchers", lessSeries, pending)
	if lessSeries < 60 || pending < 60 {
		t.Error("the test covers too little")
	}
}

// TestNarrowedStreamsFindIrregularBlocks checks that a narrowed stream finds an empty value, or
// names out of order, in labels that it is not asked for.
func TestNarrowedStreamsFindIrregularBlocks(t *testing.T) {
	chunk := []rawindex.Chunk{{Ref: 8, MinTime: 0, MaxTime: 9}}
	for _, c := range []struct {
		what   string
		labels []rawindex.Label
	}{
		{emptyValue, []rawindex.Label{{Name: "a", Value: "1"}, {Name: "b", Value: ""}}},
		{emptyValue, []rawindex.Label{{Name: "a", Value: ""}, {Name: "b", Value: "1"}}},
		{labelsDisordered, []rawindex.Label{{Name: "b", Value: "1"}, {Name: "a", Value: "1"}}},
	} {
		for _, collect := range []Collect{{Label: "a"}, {Names: true}} {
			data, err := rawindex.Encode([]rawindex.Series{
				{Labels: []rawindex.Label{{Name: "a", Value: "1"}}, Chunks: chunk},
				{Labels: c.labels, Chunks: chunk},
			})
			if err != nil {
				t.Fatal(err)
			}
			b, _ := openStreamBlock(t, data, 8192, catalog.Block{})
			p := planStream(t, b, []*labels.Matcher{everything()}, false)
			p.unordered = true
			s := p.Stream(context.Background(), StreamOptions{
				MaxTime: 9, SkipChunks: true, Collect: collect,
			})
			_, _, err = collected(t, s, collect.Label)
			p.Close()
			var irregular *IrregularError
			if !errors.As(err, &irregular) || irregular.What != c.what {
				t.Errorf("%v, %+v: error %v, want %q", c.labels, collect, err, c.what)
			}
		}
	}
}

// TestNarrowedStreamsKnowAValueFromItsName checks that a value is found that is also the name of
// its label, though its symbol was seen before.
func TestNarrowedStreamsKnowAValueFromItsName(t *testing.T) {
	chunk := []rawindex.Chunk{{Ref: 8, MinTime: 0, MaxTime: 9}}
	var series []rawindex.Series
	for _, value := range []string{"i", "job", "z"} {
		series = append(series, rawindex.Series{
			Labels: []rawindex.Label{{Name: "job", Value: value}}, Chunks: chunk,
		})
	}
	data, err := rawindex.Encode(series)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := openStreamBlock(t, data, 8192, catalog.Block{})
	p := planStream(t, b, []*labels.Matcher{everything()}, false)
	defer p.Close()
	p.unordered = true
	got, _, err := collected(t, p.Stream(context.Background(), StreamOptions{
		MaxTime: 9, SkipChunks: true, Collect: Collect{Label: "job"},
	}), "job")
	if diff := cmp.Diff([]string{"i", "job", "z"}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
