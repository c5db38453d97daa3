package rawindex_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"larder/benchmarks/rawindex"
)

// open writes the series and opens the file with Prometheus's reader, which verifies the checksums.
func open(t *testing.T, series []rawindex.Series) *index.Reader {
	t.Helper()
	file, err := rawindex.Encode(series)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "index")
	if err := os.WriteFile(name, file, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := index.NewFileReader(name, index.DecodePostingsRaw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// read returns the series of a posting list as they are stored.
func read(t *testing.T, r *index.Reader, name, value string) []rawindex.Series {
	t.Helper()
	ps, err := r.Postings(context.Background(), name, value)
	if err != nil {
		t.Fatal(err)
	}
	var out []rawindex.Series
	var sb labels.ScratchBuilder
	for ps.Next() {
		var metas []chunks.Meta
		if err := r.Series(ps.At(), &sb, &metas); err != nil {
			t.Fatal(err)
		}
		var s rawindex.Series
		sb.Labels().
			Range(func(l labels.Label) {
				s.Labels = append(s.Labels, rawindex.Label{Name: l.Name, Value: l.Value})
			})
		for _, m := range metas {
			s.Chunks = append(s.Chunks, rawindex.Chunk{Ref: uint64(m.Ref), MinTime: m.MinTime,
				MaxTime: m.MaxTime})
		}
		out = append(out, s)
	}
	if err := ps.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestPrometheusReadsWhatWasGiven encodes series without any order and compares them with what
// Prometheus's reader finds: all series, and those of each posting list.
func TestPrometheusReadsWhatWasGiven(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var series []rawindex.Series
	for range 200 {
		var s rawindex.Series
		for range 1 + r.IntN(6) {
			l := rawindex.Label{Name: "n" + strconv.Itoa(r.IntN(5))}
			if r.IntN(4) > 0 {
				l.Value = "v" + strconv.Itoa(r.IntN(9))
			}
			s.Labels = append(s.Labels, l)
		}
		for range r.IntN(4) {
			from := r.Int64N(2000) - 1000
			s.Chunks = append(s.Chunks, rawindex.Chunk{Ref: r.Uint64N(1 << 40), MinTime: from,
				MaxTime: from + r.Int64N(200) - 50})
		}
		series = append(series, s)
	}
	ir := open(t, series)
	if diff := cmp.Diff(series, read(t, ir, "", "")); diff != "" {
		t.Errorf("all series (-given +read):\n%s", diff)
	}
	lists := 0
	for n := range 5 {
		for v := -1; v < 9; v++ {
			l := rawindex.Label{Name: "n" + strconv.Itoa(n)}
			if v >= 0 {
				l.Value = "v" + strconv.Itoa(v)
			}
			var want []rawindex.Series
			for _, s := range series {
				if slices.Contains(s.Labels, l) {
					want = append(want, s)
				}
			}
			if diff := cmp.Diff(want, read(t, ir, l.Name, l.Value)); diff != "" {
				t.Errorf("list of %v (-given +read):\n%s", l, diff)
			}
			if len(want) > 0 {
				lists++
			}
		}
	}
	if lists < 40 {
		t.Errorf("only %d lists contain a series: the test compares too little", lists)
	}
}

// TestRegularSeriesAreOrdinary compares a regular index with that of Prometheus's own writer for
// the same series.
func TestRegularSeriesAreOrdinary(t *testing.T) {
	given := []rawindex.Series{
		{Labels: []rawindex.Label{{Name: "a", Value: "1"}},
			Chunks: []rawindex.Chunk{{Ref: 8, MinTime: -5, MaxTime: 10},
				{Ref: 99, MinTime: 11, MaxTime: 20}}},
		{Labels: []rawindex.Label{{Name: "a", Value: "1"}, {Name: "b", Value: "x"}},
			Chunks: []rawindex.Chunk{{Ref: 1 << 33, MinTime: 0, MaxTime: 0}}},
		{Labels: []rawindex.Label{{Name: "a", Value: "2"}}},
	}
	file, err := rawindex.Encode(given)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "index")
	w, err := index.NewWriter(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"1", "2", "a", "b", "x"} {
		if err := w.AddSymbol(s); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range given {
		sb := labels.NewScratchBuilder(len(s.Labels))
		for _, l := range s.Labels {
			sb.Add(l.Name, l.Value)
		}
		var metas []chunks.Meta
		for _, c := range s.Chunks {
			metas = append(metas, chunks.Meta{Ref: chunks.ChunkRef(c.Ref), MinTime: c.MinTime,
				MaxTime: c.MaxTime})
		}
		if err := w.AddSeries(storage.SeriesRef(i), sb.Labels(), metas...); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	// Both files are equal up to the label indexes, which only version 1 needs.
	toc, err := index.NewTOCFromByteSlice(bytesOf(want))
	if err != nil {
		t.Fatal(err)
	}
	if n := int(toc.LabelIndices); len(file) < n || !slices.Equal(want[:n], file[:n]) {
		t.Errorf("symbols and series differ from Prometheus's:\n%x\n%x", want[:n],
			file[:min(n, len(file))])
	}
}

type bytesOf []byte

func (b bytesOf) Len() int                    { return len(b) }
func (b bytesOf) Range(start, end int) []byte { return b[start:end] }
