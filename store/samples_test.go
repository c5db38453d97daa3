package store_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"larder/benchmarks/dataset"
	"larder/store/storepb"
)

func seriesLabels(s *storepb.Series) labels.Labels {
	sb := labels.NewScratchBuilder(len(s.Labels))
	for _, l := range s.Labels {
		sb.Add(l.Name, l.Value)
	}
	return sb.Labels()
}

// sampleText returns the samples of an iterator in [minT, maxT] as text, one per line, with every
// bit of each value.
func sampleText(t *testing.T, out *strings.Builder, it chunkenc.Iterator, minT, maxT int64) {
	t.Helper()
	for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
		ts := it.AtT()
		if ts < minT || ts > maxT {
			continue
		}
		switch vt {
		case chunkenc.ValFloat:
			_, v := it.At()
			fmt.Fprintf(out, "%d %x\n", ts, math.Float64bits(v))
		case chunkenc.ValHistogram:
			_, h := it.AtHistogram(nil)
			fmt.Fprintf(out, "%d %s %d\n", ts, h, h.CounterResetHint)
		case chunkenc.ValFloatHistogram:
			_, h := it.AtFloatHistogram(nil)
			fmt.Fprintf(out, "%d %s %d\n", ts, h, h.CounterResetHint)
		}
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
}

func wireChunk(t *testing.T, c *storepb.Chunk) chunkenc.Chunk {
	t.Helper()
	enc := map[storepb.Chunk_Encoding]chunkenc.Encoding{
		storepb.Chunk_XOR: chunkenc.EncXOR, storepb.Chunk_HISTOGRAM: chunkenc.EncHistogram,
		storepb.Chunk_FLOAT_HISTOGRAM: chunkenc.EncFloatHistogram,
	}[c.Type]
	chk, err := chunkenc.FromData(enc, c.Data)
	if err != nil {
		t.Fatal(err)
	}
	return chk
}

// TestSeriesHaveTheSamplesThatPrometheusReads compares answers for random selectors and ranges with
// the samples that the tsdb of Prometheus reads from the same block.
func TestSeriesHaveTheSamplesThatPrometheusReads(t *testing.T) {
	dir := t.TempDir()
	layout := dataset.Demo(7, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
	layout.Blocks = slices.DeleteFunc(layout.Blocks,
		func(b dataset.Block) bool { return b.Resolution != 0 })
	metas, err := layout.Write(context.Background(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, dir, gatewayOptions{})
	r := rand.New(rand.NewPCG(1, 2))
	nonEmpty, requests := 0, 0
	for i, m := range metas {
		if g.Catalog.View().ByID(m.ULID) == nil {
			continue // compacted into another
		}
		b, err := tsdb.OpenBlock(nil, filepath.Join(dir, m.ULID.String()), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		names, err := b.LabelNames(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		perBlock := 25
		if testing.Short() {
			perBlock = 2
		}
		for range perBlock {
			requests++
			ms := randomMatchers(t, r, b, names)
			span := m.MaxTime - m.MinTime
			minT := m.MinTime + r.Int64N(span)
			maxT := minT + r.Int64N(span)
			want := prometheusAnswer(t, b, minT, maxT, layout.Blocks[i].Labels, ms)
			got := larderAnswer(t, g, m.ULID, minT, maxT, ms, int64(r.IntN(3)*32))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("block %s, %v, [%d, %d] (-prometheus +larder):\n%s",
					m.ULID, ms, minT, maxT, diff)
			}
			if len(want) > 0 {
				nonEmpty++
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if nonEmpty*10 < requests*4 {
		t.Errorf("only %d of %d answers held a series: the test compares too little",
			nonEmpty, requests)
	}
}

func randomMatchers(t *testing.T, r *rand.Rand, b *tsdb.Block, names []string) []*labels.Matcher {
	t.Helper()
	var ms []*labels.Matcher
	for range 1 + r.IntN(3) {
		name := names[r.IntN(len(names))]
		if r.IntN(2) == 0 && slices.Contains(names, labels.MetricName) {
			name = labels.MetricName
		}
		ir, err := b.Index()
		if err != nil {
			t.Fatal(err)
		}
		values, err := ir.SortedLabelValues(context.Background(), name, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = ir.Close()
		v, w := values[r.IntN(len(values))], values[r.IntN(len(values))]
		var m *labels.Matcher
		switch r.IntN(8) {
		case 0, 1, 2:
			m = labels.MustNewMatcher(labels.MatchEqual, name, v)
		case 3:
			m = labels.MustNewMatcher(labels.MatchNotEqual, name, v)
		case 4:
			m = labels.MustNewMatcher(labels.MatchRegexp, name, quote(v)+"|"+quote(w))
		case 5:
			m = labels.MustNewMatcher(labels.MatchRegexp, name,
				quote(v[:1+r.IntN(max(len(v)-1, 1))])+".*")
		case 6:
			m = labels.MustNewMatcher(labels.MatchNotRegexp, name, quote(v)+"|"+quote(w)+"|")
		case 7:
			m = labels.MustNewMatcher(labels.MatchRegexp, name, ".*"+quote(v[len(v)/2:]))
		}
		ms = append(ms, m)
	}
	return ms
}

func quote(s string) string {
	var b strings.Builder
	for _, c := range s {
		if strings.ContainsRune(`\.+*?()|[]{}^$`, c) {
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// prometheusAnswer returns the samples of each series in the range as text, by its final labels.
func prometheusAnswer(
	t *testing.T, b *tsdb.Block, minT, maxT int64, external labels.Labels, ms []*labels.Matcher,
) map[string]string {
	t.Helper()
	q, err := tsdb.NewBlockQuerier(b, minT, maxT)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	out := map[string]string{}
	set := q.Select(
		context.Background(),
		true,
		&storage.SelectHints{Start: minT, End: maxT, DisableTrimming: true},
		ms...)
	for set.Next() {
		s := set.At()
		var text strings.Builder
		sampleText(t, &text, s.Iterator(nil), minT, maxT)
		lb := labels.NewBuilder(s.Labels())
		external.Range(func(l labels.Label) { lb.Set(l.Name, l.Value) })
		if text.Len() > 0 {
			// External labels override labels of a series, so that several series may become one.
			out[lb.Labels().String()] += text.String()
		}
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	return sortedLines(out)
}

// sortedLines sorts the lines of each text and removes duplicates.
func sortedLines(texts map[string]string) map[string]string {
	for k, text := range texts {
		lines := strings.Split(text, "\n")
		slices.Sort(lines)
		texts[k] = strings.Join(slices.Compact(lines), "\n")
	}
	return texts
}

func larderAnswer(
	t *testing.T, g *gateway, id ulid.ULID, minT, maxT int64, ms []*labels.Matcher, batch int64,
) map[string]string {
	t.Helper()
	req := &storepb.SeriesRequest{
		MinTime:           minT,
		MaxTime:           maxT,
		ResponseBatchSize: batch,
		Hints:             onlyBlock(t, id),
	}
	for _, m := range ms {
		req.Matchers = append(req.Matchers, &storepb.LabelMatcher{
			Type:  storepb.LabelMatcher_Type(m.Type),
			Name:  m.Name,
			Value: m.Value,
		})
	}
	a, err := g.query(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	last := labels.EmptyLabels()
	for i, s := range a.series {
		ls := seriesLabels(s)
		if i > 0 && labels.Compare(last, ls) >= 0 {
			t.Fatalf("series %s comes after %s", ls, last)
		}
		last = ls
		var text strings.Builder
		for _, c := range s.Chunks {
			sampleText(t, &text, wireChunk(t, c.Raw).Iterator(nil), minT, maxT)
		}
		if text.Len() > 0 {
			out[ls.String()] = text.String()
		}
	}
	return sortedLines(out)
}
