package store_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"larder/benchmarks/dataset"
	"larder/benchmarks/rawindex"
)

// storedBlock is the content of a block's index, which may be irregular.
type storedBlock struct {
	id       ulid.ULID
	external labels.Labels
	from, to int64
	series   []storedSeries
}

type storedSeries struct {
	labels []rawindex.Label
	chunks []storedChunk
}

type storedChunk struct {
	from, to int64
	data     []byte
	ref      uint64
}

// irregularity says in which ways the index of a block is irregular.
type irregularity struct {
	unorderedLabels, repeatedNames, emptyValues, unorderedSeries, repeatedSeries,
	unorderedChunks bool
}

var allIrregularities = irregularity{true, true, true, true, true, true}

func someIrregularities(r *rand.Rand) irregularity {
	coin := func() bool { return r.IntN(2) == 0 }
	return irregularity{coin(), coin(), coin(), coin(), coin(), coin()}
}

// storedValue returns a random label value. There are few values, so that series often become
// equal.
func storedValue(r *rand.Rand, name string) string {
	switch name {
	case labels.MetricName:
		return "m" + string(rune('0'+r.IntN(4)))
	case "pod":
		return fmt.Sprintf("pod-%03d", r.IntN(400))
	default:
		return string(rune('1' + r.IntN(3)))
	}
}

// storedNames are label names that sort before, between and after the external labels of the
// blocks.
var storedNames = []string{"A", "a", "b", "c", "pod", "pod", "replica", "z"}

// makeBlock returns a block of about n series over [0, 10000), with irregularities.
func makeBlock(
	r *rand.Rand, number int, external labels.Labels, n int, odd irregularity,
) *storedBlock {
	b := &storedBlock{external: external, to: 10_000}
	b.id[0], b.id[15] = 1, byte(number)
	seen := map[string]bool{}
	for range n {
		set := map[string]string{}
		if r.IntN(10) > 0 {
			set[labels.MetricName] = storedValue(r, labels.MetricName)
		}
		for range 1 + r.IntN(4) {
			name := storedNames[r.IntN(len(storedNames))]
			set[name] = storedValue(r, name)
		}
		ls := labels.FromMap(set)
		if seen[ls.String()] {
			continue
		}
		seen[ls.String()] = true
		s := storedSeries{chunks: makeChunks(r, ls)}
		ls.Range(
			func(l labels.Label) {
				s.labels = append(s.labels, rawindex.Label{Name: l.Name, Value: l.Value})
			},
		)
		b.series = append(b.series, s)
	}
	slices.SortFunc(b.series,
		func(x, y storedSeries) int { return labels.Compare(normal(x.labels), normal(y.labels)) })
	b.spoil(r, odd)
	return b
}

// makeChunks returns up to five chunks. Two series of equal labels may have equal chunks, like
// replicas.
func makeChunks(r *rand.Rand, ls labels.Labels) []storedChunk {
	var out []storedChunk
	at := int64(r.IntN(4)) * 500
	for range 1 + r.IntN(5) {
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		if err != nil {
			panic(err)
		}
		x := storedChunk{from: at}
		for range 1 + r.IntN(4) {
			app.Append(0, at, float64(ls.Hash()%1000+uint64(at)))
			x.to = at
			at += 250
		}
		x.data = c.Bytes()
		out = append(out, x)
		at += int64(r.IntN(3)) * 500
	}
	return out
}

func (b *storedBlock) spoil(r *rand.Rand, odd irregularity) {
	if odd.repeatedSeries {
		for _, s := range slices.Clone(b.series) {
			if r.IntN(4) > 0 {
				continue
			}
			second := storedSeries{labels: slices.Clone(s.labels), chunks: slices.Clone(s.chunks)}
			if r.IntN(2) == 0 {
				second.chunks = makeChunks(r, normal(s.labels))
			}
			b.series = append(b.series, second)
		}
		slices.SortStableFunc(
			b.series,
			func(x, y storedSeries) int {
				return labels.Compare(normal(x.labels), normal(y.labels))
			},
		)
	}
	for i := range b.series {
		s := &b.series[i]
		if odd.repeatedNames && r.IntN(3) == 0 {
			l := s.labels[r.IntN(len(s.labels))]
			l.Value = storedValue(r, l.Name)
			s.labels = slices.Insert(s.labels, r.IntN(len(s.labels)+1), l)
		}
		if odd.emptyValues && r.IntN(3) == 0 {
			l := rawindex.Label{
				Name: append([]string{"void", labels.MetricName},
					storedNames...)[r.IntN(len(storedNames)+2)],
			}
			s.labels = slices.Insert(s.labels, r.IntN(len(s.labels)+1), l)
		}
		if odd.unorderedLabels && r.IntN(2) == 0 {
			r.Shuffle(len(s.labels),
				func(i, j int) { s.labels[i], s.labels[j] = s.labels[j], s.labels[i] })
		}
		if odd.unorderedChunks && r.IntN(3) == 0 {
			r.Shuffle(len(s.chunks),
				func(i, j int) { s.chunks[i], s.chunks[j] = s.chunks[j], s.chunks[i] })
		}
	}
	if odd.unorderedSeries {
		for range 1 + r.IntN(len(b.series)) {
			i, j := r.IntN(len(b.series)), r.IntN(len(b.series))
			b.series[i], b.series[j] = b.series[j], b.series[i]
		}
	}
}

// write writes the block into the folder of a bucket, with small chunk files. Chunks are in the
// order of the series, or in random order if mixed is set.
func (b *storedBlock) write(t testing.TB, r *rand.Rand, bucket string, mixed bool) {
	t.Helper()
	dir := filepath.Join(bucket, b.id.String())
	w, err := chunks.NewWriter(mkdir(t, filepath.Join(dir, "chunks")),
		chunks.WithSegmentSize(4<<10))
	if err != nil {
		t.Fatal(err)
	}
	var all []*storedChunk
	for i := range b.series {
		for j := range b.series[i].chunks {
			all = append(all, &b.series[i].chunks[j])
		}
	}
	if mixed {
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	for _, c := range all {
		x, err := chunkenc.FromData(chunkenc.EncXOR, c.data)
		if err != nil {
			t.Fatal(err)
		}
		m := []chunks.Meta{{Chunk: x, MinTime: c.from, MaxTime: c.to}}
		if err := w.WriteChunks(m...); err != nil {
			t.Fatal(err)
		}
		c.ref = uint64(m[0].Ref)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	series := make([]rawindex.Series, len(b.series))
	for i, s := range b.series {
		series[i].Labels = s.labels
		for _, c := range s.chunks {
			series[i].Chunks = append(series[i].Chunks,
				rawindex.Chunk{Ref: c.ref, MinTime: c.from, MaxTime: c.to})
		}
	}
	index, err := rawindex.Encode(series)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index"), index, 0o600); err != nil {
		t.Fatal(err)
	}
	m := dataset.Meta{BlockMeta: tsdb.BlockMeta{
		ULID: b.id, MinTime: b.from, MaxTime: b.to, Version: 1,
		Compaction: tsdb.BlockMetaCompaction{Level: 1, Sources: []ulid.ULID{b.id}},
	}}
	m.Thanos.Version, m.Thanos.Labels, m.Thanos.Source = 1, b.external.Map(), "receive"
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "meta.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t testing.TB, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// normal returns the label set of a stored series: the last pair of each name, without empty
// values.
func normal(stored []rawindex.Label) labels.Labels {
	last := map[string]string{}
	for _, l := range stored {
		last[l.Name] = l.Value
	}
	maps.DeleteFunc(last, func(_, v string) bool { return v == "" })
	return labels.FromMap(last)
}

// irregularBucket writes a bucket with pairs of replicas of which one or both are irregular, a
// regular block with other external labels, and a block whose external labels override labels of
// its series.
func irregularBucket(t testing.TB, r *rand.Rand, perBlock int) (dir string, blocks []*storedBlock) {
	t.Helper()
	dir = t.TempDir()
	add := func(seed uint64, odd irregularity, external ...string) {
		own := rand.New(rand.NewPCG(seed, 5))
		b := makeBlock(own, len(blocks), labels.FromStrings(external...), perBlock, odd)
		b.write(t, r, dir, odd.unorderedChunks)
		blocks = append(blocks, b)
	}
	pair := r.Uint64()
	add(pair, irregularity{}, "cluster", "eu", "replica", "a")
	add(pair, allIrregularities, "cluster", "eu", "replica", "b")
	add(pair, irregularity{unorderedLabels: true}, "cluster", "eu", "replica", "c")
	add(r.Uint64(), someIrregularities(r), "cluster", "us", "replica", "a")
	add(r.Uint64(), someIrregularities(r), "cluster", "us", "b", "2")
	add(r.Uint64(), irregularity{}, "cluster", "us", "zone", "1")
	return dir, blocks
}

// chunkOrder compares chunks in the order of an answer: by times, then by data, descending.
func chunkOrder(a, b storedChunk) int {
	return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to),
		strings.Compare(string(b.data), string(a.data)))
}
