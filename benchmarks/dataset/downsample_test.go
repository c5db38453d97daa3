package dataset_test

import (
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"larder/benchmarks/dataset"
	"larder/internal/tsdbfmt"
)

type tv struct {
	t int64
	v float64
}

func floats(t *testing.T, c chunkenc.Chunk) (out []tv) {
	t.Helper()
	it := c.Iterator(nil)
	for it.Next() == chunkenc.ValFloat {
		at, v := it.At()
		out = append(out, tv{at, v})
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// eachChunk calls f with every chunk of a block.
func eachChunk(t *testing.T, dir string, f func(series string, m chunks.Meta, c chunkenc.Chunk)) {
	t.Helper()
	b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), dir, aggrPool{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	indexr, err := b.Index()
	if err != nil {
		t.Fatal(err)
	}
	defer indexr.Close()
	chunkr, err := b.Chunks()
	if err != nil {
		t.Fatal(err)
	}
	defer chunkr.Close()
	name, v := index.AllPostingsKey()
	p, err := indexr.Postings(t.Context(), name, v)
	if err != nil {
		t.Fatal(err)
	}
	var (
		builder labels.ScratchBuilder
		metas   []chunks.Meta
	)
	for p.Next() {
		if err := indexr.Series(p.At(), &builder, &metas); err != nil {
			t.Fatal(err)
		}
		for _, m := range metas {
			c, _, err := chunkr.ChunkOrIterable(m)
			if err != nil {
				t.Fatal(err)
			}
			f(builder.Labels().String(), m, c)
		}
	}
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
}

// TestDownsampled computes the aggregates of raw samples again, in the simple way, and compares
// them with the downsampled block.
func TestDownsampled(t *testing.T) {
	const (
		hour       = int64(3_600_000)
		resolution = int64(300_000)
	)
	src := dataset.Service{Name: "a", Namespace: "b", Pods: 2, Handlers: 1,
		Rollout: dataset.Epoch + 25*hour}.Series(5)
	raw := dataset.Block{MinTime: dataset.Epoch, MaxTime: dataset.Epoch + 48*hour, Series: src,
		Jitter: 30}
	down := raw
	down.ID[15], down.Resolution, down.SamplesPerChunk = 1, resolution, 100
	dir, metas := write(t, dataset.Layout{Name: "downsampled", Blocks: []dataset.Block{raw, down}},
		dataset.WriteOptions{})

	block := func(i int) string { return filepath.Join(dir, metas[i].ULID.String()) }

	samples := map[string][]tv{}
	eachChunk(t, block(0), func(series string, _ chunks.Meta, c chunkenc.Chunk) {
		for _, s := range floats(t, c) {
			if !value.IsStaleNaN(s.v) {
				samples[series] = append(samples[series], s)
			}
		}
	})
	next, resets, checked := map[string]int{}, 0, 0
	eachChunk(t, block(1), func(series string, m chunks.Meta, c chunkenc.Chunk) {
		sub, err := tsdbfmt.AggrChunk(c.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		var parts [tsdbfmt.NumAggrs][]tv
		for i, s := range sub {
			part, err := chunkenc.FromData(chunkenc.Encoding(s.Enc), s.Data)
			if err != nil {
				t.Fatal(err)
			}
			parts[i] = floats(t, part)
		}
		left := samples[series][next[series]:]
		first := left[0]
		counter, last := first.v, first.v
		used := 0
		for w, count := range parts[tsdbfmt.AggrCount] {
			n := int(count.v)
			if n < 1 || n > len(left)-used {
				t.Fatalf(
					"%s: window at %d counts %d samples of %d", series, count.t, n,
					len(left)-used,
				)
			}
			window := left[used : used+n]
			used += n
			end := window[0].t - window[0].t%resolution + resolution - 1
			if w == len(parts[tsdbfmt.AggrCount])-1 {
				end = window[n-1].t
			}
			if window[n-1].t > end || used < len(left) && left[used].t <= end ||
				count.t != end {
				t.Fatalf(
					"%s: window of samples at [%d, %d] is at %d, want %d", series, window[0].t,
					window[n-1].t, count.t, end,
				)
			}
			sum, lo, hi := 0.0, math.Inf(1), math.Inf(-1)
			for _, s := range window {
				sum += s.v
				lo, hi = min(lo, s.v), max(hi, s.v)
				if s.v < last {
					resets++
					counter += s.v
				} else {
					counter += s.v - last
				}
				last = s.v
			}
			wants := map[int]float64{tsdbfmt.AggrSum: sum, tsdbfmt.AggrMin: lo,
				tsdbfmt.AggrMax: hi}
			for i, want := range wants {
				if got := parts[i][w]; got != (tv{end, want}) {
					t.Fatalf(
						"%s: window at %d: aggregate %d is %v, want %g", series, end, i, got,
						want,
					)
				}
			}
			if got := parts[tsdbfmt.AggrCounter][w+1]; got.t != end ||
				math.Abs(got.v-counter) > 1e-9*math.Abs(counter) {
				t.Fatalf("%s: window at %d: counter %v, want %g", series, end, got, counter)
			}
			checked++
		}
		ends := parts[tsdbfmt.AggrCounter]
		if ends[0] != first || ends[len(ends)-1] != (tv{m.MaxTime, last}) {
			t.Errorf(
				"%s: the counter begins with %v and ends with %v, the samples with %v and %g",
				series, ends[0], ends[len(ends)-1], first, last,
			)
		}
		next[series] += used
	})
	for series, s := range samples {
		if next[series] != len(s) {
			t.Errorf("%s: %d of %d samples were downsampled", series, next[series], len(s))
		}
	}
	if resets == 0 || checked < 10_000 ||
		!slices.ContainsFunc(
			metas, func(m *dataset.Meta) bool { return m.Thanos.IndexStats.SeriesMaxSize > 0 }) {
		t.Errorf("%d windows, %d counter resets", checked, resets)
	}
}
