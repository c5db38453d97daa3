package store_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/benchmarks/dataset"
	"larder/internal/tsdbfmt"
)

// TestLengthsOfChunkRecordsAreNotBelieved writes thousands of record heads that claim 256 KiB each
// and overlap. The request must fail with an error that names the record, before it reads and
// copies the claimed bytes.
func TestLengthsOfChunkRecordsAreNotBelieved(t *testing.T) {
	const claim = 256 << 10
	dir := filepath.Join(t.TempDir(), "bucket")
	metas, err := dataset.WholeMetric("x", 1, 2500, 30_000).
		Write(context.Background(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	id, changed := metas[0].ULID.String(), 0
	damage(t, filepath.Join(dir, id, "chunks/000001"), func(b []byte) []byte {
		for off := 8; off < len(b); {
			n, w := binary.Uvarint(b[off:])
			if off+claim+16 < len(b) {
				binary.PutUvarint(b[off:], claim)
				changed++
			}
			off += w + 1 + int(n) + 4
		}
		return b
	})
	if changed < 1000 {
		t.Fatalf("only %d heads were changed", changed)
	}
	g := startGateway(t, dir, gatewayOptions{})
	before := allocated()
	err = g.Server.Series(wholeMetric(64), &sink{ctx: t.Context()})
	if status.Code(err) != codes.Aborted ||
		!strings.Contains(err.Error(), id+"/chunks/000001: chunk record at offset 8") {
		t.Errorf("got %v, want Aborted that names the record", err)
	}
	if took := allocated() - before; took > 64<<20 {
		t.Errorf("the request allocated %d MiB", took>>20)
	}
}

// uncached returns options without caches, so that pages belong to the request that reads them.
var uncached = gatewayOptions{indexBytes: -1, setBytes: -1, chunkBytes: -1, postingsBytes: -1}

// holdLongRecords checks the memory of requests for records that are longer than their bounds,
// because meta.json states no largest size. They are read again, and the bytes are reserved before.
func holdLongRecords(t *testing.T) {
	dir, meta := writeMetric(
		t,
		metricOf(60, func(int) []string { return nil }),
		func(b *dataset.Block) {
			b.MaxTime, b.Interval, b.SamplesPerChunk = b.MinTime+20_000*10_000, 10_000, 20_000
		},
	)
	editMeta(t, dir, meta,
		func(m map[string]any) { delete(m["thanos"].(map[string]any), "index_stats") })
	heldOf(t, startGateway(t, dir, uncached), "long records", wholeMetric(0), 1)
}

// mostWithLongLabels bounds the memory of a request for one block whose labels are long but fit
// into a segment.
const mostWithLongLabels = 20 << 20

// holdLongLabels checks the memory of requests for labels far longer than estimated. The bytes are
// reserved before they are used, and segments do not grow with the labels.
func holdLongLabels(t *testing.T, series int) {
	for _, size := range []int{100, 1000, 4000, 16_000} {
		dir, _ := writeMetric(t, metricOf(series, func(i int) []string {
			return []string{"query", fmt.Sprintf("%07d", i) + strings.Repeat("q", size)}
		}), nil)
		name := fmt.Sprintf("values of %d bytes", size)
		if held, _ := heldOf(t, startGateway(t, dir, uncached), name, wholeMetric(64),
			series/64/20); held > mostWithLongLabels {
			t.Errorf("%s: a request held %d bytes", name, held)
		}
	}
	value := strings.Repeat("v", 8<<10)
	dir, _ := writeMetric(t, metricOf(300, func(int) (ls []string) {
		for k := range 100 {
			ls = append(ls, fmt.Sprintf("z%03d", k), value)
		}
		return ls
	}), nil)
	g := startGateway(t, dir, uncached)
	for _, batch := range []int64{1, 64} {
		if held, _ := heldOf(t, g, "a hundred labels of 8 KiB", wholeMetric(batch),
			10); held > mostWithLongLabels {
			t.Errorf("a hundred labels of 8 KiB: a request held %d bytes", held)
		}
	}
}

// holdLongEntries checks the memory of requests for series with very many chunks.
func holdLongEntries(t *testing.T) {
	for _, stats := range []bool{true, false} {
		dir, meta := writeMetric(
			t,
			metricOf(200, func(int) []string { return nil }),
			func(b *dataset.Block) {
				b.MaxTime, b.Interval, b.SamplesPerChunk = b.MinTime+8000*1000, 1000, 1
			},
		)
		if !stats {
			editMeta(t, dir, meta,
				func(m map[string]any) { delete(m["thanos"].(map[string]any), "index_stats") })
		}
		g := startGateway(t, dir, uncached)
		heldOf(t, g, fmt.Sprintf("8000 chunks a series, figures in meta.json %v", stats),
			wholeMetric(64), 5)
		narrow := wholeMetric(64)
		narrow.MinTime, narrow.MaxTime = dataset.Epoch, dataset.Epoch+5000
		heldOf(t, g, "a few of them", narrow, 1)
	}
}

// TestLongLabelsAreAnswered queries series whose labels have very different lengths, some longer
// than the limit of a segment: from index pages, while a series set is built, and from the set.
func TestLongLabelsAreAnswered(t *testing.T) {
	dir, _ := writeMetric(t, metricOf(600, func(i int) []string {
		switch {
		case i%100 == 50:
			return []string{"query", fmt.Sprint(i) + strings.Repeat("l", 3<<20)}
		case i%3 == 0:
			return []string{"query", fmt.Sprint(i) + strings.Repeat("m", 16_000)}
		}
		return []string{"query", "s" + strings.Repeat("s", i%50)}
	}), nil)
	plain, kept := startGateway(
		t, dir, uncached,
	), startGateway(t, dir, gatewayOptions{setBytes: 256 << 20})
	req := wholeMetric(64)
	want, err := plain.query(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if len(want.series) != 600 {
		t.Fatalf("%d series of 600", len(want.series))
	}
	for i, s := range want.series {
		ls := seriesLabels(s)
		if n := len(ls.Get("query")); ls.Get("pod") != fmt.Sprintf("%07d", i) ||
			i%100 == 50 && n < 3<<20 ||
			i%3 == 0 && i%100 != 50 && n < 16_000 {
			t.Fatalf("series %d is pod %s with a value of %d bytes", i, ls.Get("pod"), n)
		}
	}
	for range 3 {
		got, err := kept.query(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.texts(), want.texts()) {
			t.Error("the answer from series sets differs")
		}
	}
	if kept.Sets.Stats().Hits == 0 {
		t.Error("no series set was used")
	}
}

// TestLengthsOfSeriesEntriesAreNotBelieved checks that an entry that claims to overlap the next one
// is not read. The error names both.
func TestLengthsOfSeriesEntriesAreNotBelieved(t *testing.T) {
	dir, meta := writeMetric(t, metricOf(3000, func(int) []string { return nil }), nil)
	id := meta.ULID.String()
	damage(t, filepath.Join(dir, id, "index"), func(b []byte) []byte {
		toc, err := tsdbfmt.ParseTOC(b, b[len(b)-tsdbfmt.TOCSize:], int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		for off := toc.Series; off+(64<<10) < toc.SectionEnd(toc.Series, int64(len(b))); {
			size, err := tsdbfmt.SeriesEntrySize(b[off:])
			if err != nil {
				t.Fatal(err)
			}
			binary.PutUvarint(b[off:], 32<<10)
			off = tsdbfmt.NextSeriesOffset(toc.Version, off+int64(size))
		}
		return b
	})
	g := startGateway(t, dir, gatewayOptions{})
	err := g.Server.Series(wholeMetric(64), &sink{ctx: t.Context()})
	if status.Code(err) != codes.Aborted ||
		!strings.Contains(err.Error(), id+"/index: series entry at offset") ||
		!strings.Contains(err.Error(), "the next one begins at") {
		t.Errorf("got %v, want Aborted that names the entry and the next one", err)
	}
}

// allocated returns how many bytes the process has allocated in total.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// seriesList is a list of series for a dataset.
type seriesList []dataset.Series

func (l seriesList) Series() iter.Seq[dataset.Series] {
	return func(yield func(dataset.Series) bool) {
		for _, s := range l {
			if !yield(s) {
				return
			}
		}
	}
}

// metricOf returns n series of one metric, each with the labels that more returns for it.
func metricOf(n int, more func(i int) []string) (out seriesList) {
	for i := range n {
		ls := append(
			[]string{"__name__", dataset.WholeMetricName, "pod", fmt.Sprintf("%07d", i)},
			more(i)...)
		out = append(out,
			dataset.Series{Labels: labels.FromStrings(ls...), Kind: dataset.Ratio, Seed: uint64(i)})
	}
	return out
}

// writeMetric writes a block of two hours with the series, after change has edited it. It returns
// the folder of the bucket.
func writeMetric(
	t *testing.T, series seriesList, change func(*dataset.Block),
) (dir string, meta *dataset.Meta) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "bucket")
	b := dataset.Block{
		MinTime: dataset.Epoch, MaxTime: dataset.Epoch + 2*3600_000, Interval: 3600_000,
		Series: series, Labels: labels.FromStrings("cluster", "eu"),
	}
	b.ID[0], b.ID[15] = 1, 1
	if change != nil {
		change(&b)
	}
	metas, err := dataset.Layout{
		Name:   "metric",
		Blocks: []dataset.Block{b},
	}.Write(context.Background(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return dir, metas[0]
}
