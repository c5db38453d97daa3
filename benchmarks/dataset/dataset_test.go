package dataset_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"larder/benchmarks/dataset"
	"larder/internal/tsdbfmt"
)

func write(
	t testing.TB, l dataset.Layout, opts dataset.WriteOptions,
) (dir string, metas []*dataset.Meta) {
	t.Helper()
	dir = t.TempDir()
	metas, err := l.Write(t.Context(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return dir, metas
}

func demo(seed uint64) dataset.Layout { return dataset.Demo(seed, time.UnixMilli(dataset.Epoch)) }

// writtenDemo is the demo, written once for all tests that only read it. TestMain removes its
// folder.
var writtenDemo = sync.OnceValues(func() (w written, err error) {
	if w.dir, err = os.MkdirTemp("", "larder-demo"); err != nil {
		return w, err
	}
	demoDir = w.dir
	w.metas, err = demo(1).Write(context.Background(), w.dir, dataset.WriteOptions{
		Concurrency: 4,
		Progress:    func(p dataset.Progress) { w.last, w.reports = p, w.reports+1 },
	})
	return w, err
})

// demoDir is the folder of writtenDemo, "" if no test has used it.
var demoDir string

type written struct {
	dir     string
	metas   []*dataset.Meta
	last    dataset.Progress
	reports int
}

func readDemo(t *testing.T) written {
	t.Helper()
	w, err := writtenDemo()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestMain(m *testing.M) {
	code := m.Run()
	if demoDir != "" {
		os.RemoveAll(demoDir)
	}
	os.Exit(code)
}

// sums returns the checksum of every file below dir.
func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		out[rel] = fmt.Sprintf("%x", sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// small returns small versions of the benchmarks' layouts.
func small(seed uint64) []dataset.Layout {
	return []dataset.Layout{
		dataset.WholeMetric("wholemetric", seed, 1000, 30_000),
		dataset.ManyValues("manyvalues", seed, 3000),
		dataset.ManyBlocks("manyblocks", seed, 5),
	}
}

func TestSameSeedSameBytes(t *testing.T) {
	t.Parallel()
	other := small(2)
	for i, l := range small(1) {
		a, _ := write(t, l, dataset.WriteOptions{Concurrency: 1})
		b, _ := write(t, l, dataset.WriteOptions{Concurrency: 4})
		want := sums(t, a)
		if diff := cmp.Diff(want, sums(t, b)); diff != "" {
			t.Errorf("%s: %s", l.Name, diff)
		}
		if len(want) < 3*len(l.Blocks) {
			t.Errorf("%s: %d files of %d blocks", l.Name, len(want), len(l.Blocks))
		}
		c, _ := write(t, other[i], dataset.WriteOptions{})
		if cmp.Equal(want, sums(t, c)) {
			t.Errorf("%s: another seed makes no difference", l.Name)
		}
	}
	// Compare one block of each kind of the demo. The others are made the same way, of the same
	// series.
	type kind struct {
		cluster        string // of the two replicas, one is enough
		resolution     int64
		level          int
		startTimestamp bool
	}
	l := demo(1)
	seen := map[kind]bool{}
	some := slices.DeleteFunc(slices.Clone(l.Blocks), func(b dataset.Block) bool {
		k := kind{b.Labels.Get("cluster"), b.Resolution, b.Level, b.StartTimestamps}
		known := seen[k]
		seen[k] = true
		return known
	})
	if len(some) < 7 || len(some) == len(l.Blocks) {
		t.Errorf("%d kinds among the demo's %d blocks", len(some), len(l.Blocks))
	}
	l.Blocks = some
	again, _ := write(t, l, dataset.WriteOptions{Concurrency: 1})
	all := sums(t, readDemo(t).dir)
	for name, got := range sums(t, again) {
		if want := all[name]; got != want {
			t.Errorf("demo: %s has checksum %s, want %s", name, got, want)
		}
	}
}

// TestBlocksOpen opens every block with Prometheus's own reader, reads each chunk of each series,
// and compares the results with meta.json.
func TestBlocksOpen(t *testing.T) {
	t.Parallel()
	for _, l := range small(1) {
		dir, metas := write(t, l, dataset.WriteOptions{})
		for i, m := range metas {
			verifyBlock(t, filepath.Join(dir, m.ULID.String()), l.Blocks[i], m)
		}
	}
	w := readDemo(t)
	for i, b := range demo(1).Blocks {
		verifyBlock(t, filepath.Join(w.dir, w.metas[i].ULID.String()), b, w.metas[i])
	}
}

func verifyBlock(t *testing.T, dir string, spec dataset.Block, m *dataset.Meta) {
	t.Helper()
	onDisk, err := dataset.ReadMeta(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, onDisk); diff != "" {
		t.Errorf("%s: meta.json: %s", m.ULID, diff)
	}
	for _, f := range m.Thanos.Files {
		info, err := os.Stat(filepath.Join(dir, f.RelPath))
		if err != nil || f.RelPath != "meta.json" && info.Size() != f.SizeBytes {
			t.Errorf("%s: file %s of %d bytes: %v", m.ULID, f.RelPath, f.SizeBytes, err)
		}
	}
	if want := labels.FromMap(m.Thanos.Labels); !labels.Equal(want, spec.Labels) ||
		m.Thanos.Downsample.Resolution != spec.Resolution {
		t.Errorf("%s: labels %s, resolution %d", m.ULID, want, m.Thanos.Downsample.Resolution)
	}

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

	var (
		stats   tsdb.BlockStats
		builder labels.ScratchBuilder
		metas   []chunks.Meta
		name, v = index.AllPostingsKey()
	)
	p, err := indexr.Postings(context.Background(), name, v)
	if err != nil {
		t.Fatal(err)
	}
	for p.Next() {
		if err := indexr.Series(p.At(), &builder, &metas); err != nil {
			t.Fatal(err)
		}
		stats.NumSeries++
		last := int64(math.MinInt64)
		for _, cm := range metas {
			stats.NumChunks++
			if cm.MinTime <= last || cm.MaxTime < cm.MinTime || cm.MinTime < m.MinTime ||
				cm.MaxTime >= m.MaxTime {
				t.Fatalf("%s: %s: chunk [%d, %d] after %d in a block [%d, %d)", m.ULID,
					builder.Labels(), cm.MinTime, cm.MaxTime, last, m.MinTime, m.MaxTime)
			}
			last = cm.MaxTime
			c, _, err := chunkr.ChunkOrIterable(cm)
			if err != nil {
				t.Fatal(err)
			}
			if spec.Resolution != 0 {
				stats.NumSamples += verifyAggr(t, c, cm)
				continue
			}
			stats.NumSamples += uint64(c.NumSamples())
			if mint, maxt := timesOf(t, c); mint != cm.MinTime || maxt != cm.MaxTime {
				t.Fatalf("%s: %s: chunk [%d, %d] has samples [%d, %d]", m.ULID, builder.Labels(),
					cm.MinTime, cm.MaxTime, mint, maxt)
			}
		}
	}
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m.Stats, stats); diff != "" {
		t.Errorf("%s: stats (-meta +found): %s", m.ULID, diff)
	}
	if stats.NumSeries == 0 {
		t.Errorf("%s is empty", m.ULID)
	}
}

func timesOf(t *testing.T, c chunkenc.Chunk) (mint, maxt int64) {
	t.Helper()
	it := c.Iterator(nil)
	for i := 0; it.Next() != chunkenc.ValNone; i++ {
		if i == 0 {
			mint = it.AtT()
		} else if it.AtT() <= maxt {
			t.Fatalf("sample at %d after one at %d", it.AtT(), maxt)
		}
		maxt = it.AtT()
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return mint, maxt
}

// verifyAggr decodes an aggregate chunk and returns the number of its windows.
func verifyAggr(t *testing.T, c chunkenc.Chunk, m chunks.Meta) uint64 {
	t.Helper()
	sub, err := tsdbfmt.AggrChunk(c.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	var values [tsdbfmt.NumAggrs][]float64
	var times []int64
	floats := sub[tsdbfmt.AggrMin].Present
	for i, s := range sub {
		if !s.Present {
			if floats || i != tsdbfmt.AggrMin && i != tsdbfmt.AggrMax {
				t.Fatalf("aggregate %d is absent", i)
			}
			continue
		}
		part, err := chunkenc.FromData(chunkenc.Encoding(s.Enc), s.Data)
		if err != nil {
			t.Fatal(err)
		}
		it := part.Iterator(nil)
		for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
			if i == tsdbfmt.AggrCount {
				times = append(times, it.AtT())
			}
			if vt == chunkenc.ValFloat {
				_, v := it.At()
				values[i] = append(values[i], v)
			} else {
				_, h := it.AtFloatHistogram(nil)
				values[i] = append(values[i], h.Count)
			}
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
	}
	n := len(times)
	if n == 0 || times[0] != m.MinTime || times[n-1] != m.MaxTime {
		t.Fatalf("windows at %d in a chunk [%d, %d]", times, m.MinTime, m.MaxTime)
	}
	wantCounter := n
	if floats {
		wantCounter = n + 2
	}
	if len(values[tsdbfmt.AggrSum]) != n || len(values[tsdbfmt.AggrCounter]) != wantCounter {
		t.Fatalf("%d counts, %d sums, %d counters", n, len(values[tsdbfmt.AggrSum]),
			len(values[tsdbfmt.AggrCounter]))
	}
	for i := range n {
		count, sum := values[tsdbfmt.AggrCount][i], values[tsdbfmt.AggrSum][i]
		if !floats {
			continue
		}
		lo, hi := values[tsdbfmt.AggrMin][i], values[tsdbfmt.AggrMax][i]
		if count < 1 || lo > hi || sum < lo*count*(1-1e-9) || sum > hi*count*(1+1e-9) {
			t.Fatalf("window at %d: count %g, sum %g, min %g, max %g", times[i], count, sum, lo, hi)
		}
	}
	return uint64(n)
}

// aggrPool reads aggregate chunks in addition to Prometheus's own.
type aggrPool struct{}

type aggrChunk struct {
	chunkenc.Chunk
	data []byte
}

func (c aggrChunk) Bytes() []byte { return c.data }

func (aggrPool) Put(chunkenc.Chunk) error { return nil }
func (aggrPool) Get(e chunkenc.Encoding, b []byte) (chunkenc.Chunk, error) {
	if byte(e) == tsdbfmt.EncAggr {
		return aggrChunk{data: b}, nil
	}
	return chunkenc.FromData(e, b)
}

// TestDemoHasEverything: the demo contains what its comment promises.
func TestDemoHasEverything(t *testing.T) {
	w := readDemo(t)
	series := 0
	sets, resolutions := map[string]int{}, map[int64]int{}
	encodings := map[chunkenc.Encoding]int{}
	var files, leftovers int
	covered := map[string]bool{}
	for _, m := range w.metas {
		series += int(m.Stats.NumSeries)
		sets[labels.FromMap(m.Thanos.Labels).String()]++
		resolutions[m.Thanos.Downsample.Resolution]++
		files = max(files, len(m.Thanos.SegmentFiles))
		for _, s := range m.Compaction.Sources {
			if s != m.ULID {
				covered[s.String()] = true
			}
		}
		countEncodings(t, filepath.Join(w.dir, m.ULID.String(), "chunks"), encodings)
	}
	for _, m := range w.metas {
		if covered[m.ULID.String()] {
			leftovers++
		}
	}
	if len(sets) != 4 || resolutions[0] == 0 || resolutions[300_000] == 0 ||
		resolutions[3_600_000] == 0 || files < 2 || leftovers != 1 {
		t.Errorf("label sets %v, resolutions %v, at most %d chunk files, %d leftovers", sets,
			resolutions, files, leftovers)
	}
	for e := chunkenc.EncXOR; e <= chunkenc.EncFloatHistogramST; e++ {
		if encodings[e] == 0 {
			t.Errorf("no chunk of encoding %s", e)
		}
	}
	if encodings[chunkenc.Encoding(tsdbfmt.EncAggr)] == 0 {
		t.Error("no aggregate chunk")
	}
	if n := len(w.metas); w.last.Blocks != n || w.last.TotalBlocks != n ||
		w.last.Series != series ||
		w.reports < n {
		t.Errorf(
			"%d reports, the last %+v, of %d blocks and %d series", w.reports, w.last, n, series,
		)
	}
}

func countEncodings(t *testing.T, dir string, into map[chunkenc.Encoding]int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for b = b[tsdbfmt.ChunkFileHeader:]; len(b) > 0; {
			n, err := tsdbfmt.ChunkRecordSize(b)
			if err != nil {
				t.Fatal(err)
			}
			enc, _, err := tsdbfmt.ChunkRecord(b[:n])
			if err != nil {
				t.Fatal(err)
			}
			into[chunkenc.Encoding(enc)]++
			b = b[n:]
		}
	}
}

type point struct {
	Bits uint64
	H    *histogram.FloatHistogram
}

// samples reads all raw samples of a block.
func samples(t *testing.T, dir string) map[string]map[int64]point {
	t.Helper()
	b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	q, err := tsdb.NewBlockQuerier(b, math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	out := map[string]map[int64]point{}
	ss := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp,
		labels.MetricName, ".*"))
	for ss.Next() {
		pts := map[int64]point{}
		it := ss.At().Iterator(nil)
		for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
			var p point
			if vt == chunkenc.ValFloat {
				_, v := it.At()
				p.Bits = math.Float64bits(v)
			} else {
				_, p.H = it.AtFloatHistogram(nil)
				p.H.CounterResetHint = 0 // depends on where the chunk started
				if value.IsStaleNaN(p.H.Sum) {
					p = point{Bits: value.StaleNaN} // two NaNs never compare equal
				}
			}
			pts[it.AtT()] = p
		}
		out[ss.At().Labels().String()] = pts
	}
	if err := ss.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestBlocksAgree: a sample does not depend on its block, its position in the interval, or the
// encoding.
func TestBlocksAgree(t *testing.T) {
	const hour = int64(3_600_000)
	src := dataset.Service{Name: "a", Namespace: "b", Pods: 2, Handlers: 1, Native: true,
		Rollout: dataset.Epoch + 3*hour/2}.Series(3)
	block := func(id byte, from, to int64, edit func(*dataset.Block)) dataset.Block {
		b := dataset.Block{MinTime: dataset.Epoch + from, MaxTime: dataset.Epoch + to, Series: src,
			Jitter: 20}
		b.ID[15] = id
		if edit != nil {
			edit(&b)
		}
		return b
	}
	l := dataset.Layout{Name: "overlap", Blocks: []dataset.Block{
		block(1, 0, 2*hour, nil),
		block(2, hour, 3*hour, func(b *dataset.Block) { b.SamplesPerChunk = 50 }),
		block(3, 0, 2*hour, func(b *dataset.Block) { b.StartTimestamps = true }),
		block(4, 0, 2*hour, func(b *dataset.Block) { b.Scraper = 1 }),
	}}
	dir, metas := write(t, l, dataset.WriteOptions{})
	var all []map[string]map[int64]point
	for _, m := range metas {
		all = append(all, samples(t, filepath.Join(dir, m.ULID.String())))
	}
	if diff := cmp.Diff(all[0], all[2]); diff != "" {
		t.Errorf("with start timestamps: %s", diff)
	}
	common, stale := 0, 0
	for name, pts := range all[0] {
		for at, p := range pts {
			if p.Bits == value.StaleNaN {
				stale++
				continue
			}
			other, ok := all[1][name][at]
			if ok != (at >= dataset.Epoch+hour) {
				t.Fatalf("%s at %d: in both blocks %v", name, at, ok)
			}
			if ok {
				common++
				if diff := cmp.Diff(p, other); diff != "" {
					t.Fatalf("%s at %d: %s", name, at, diff)
				}
			}
		}
	}
	if common == 0 || stale == 0 {
		t.Errorf("%d samples in both blocks, %d staleness markers", common, stale)
	}
	shared, apart := 0, 0
	for name, pts := range all[0] {
		for at := range pts {
			if _, ok := all[3][name][at]; ok {
				shared++
			} else {
				apart++
			}
		}
	}
	if apart < 10*shared {
		t.Errorf("two scrapers: %d samples at the same moment, %d apart", shared, apart)
	}
}

func TestWriteIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dir := t.TempDir()
	_, err := dataset.WholeMetric("cancelled", 1, 20_000, 30_000).
		Write(ctx, dir, dataset.WriteOptions{
			Progress: func(dataset.Progress) { cancel() },
		})
	if err == nil || ctx.Err() == nil {
		t.Fatalf("written: %v", err)
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "*", "meta.json")); len(found) != 0 {
		t.Errorf("an unfinished block has a meta.json: %s", found)
	}
}
