package store_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/benchmarks/dataset"
)

// TestLengthsOfChunkRecordsAreNotBelieved: heads that claim a quarter of a MiB each, thousands of them, over one another. The request ends with an error
// that names the record, before the bytes that they claim are read and copied.
func TestLengthsOfChunkRecordsAreNotBelieved(t *testing.T) {
	const claim = 256 << 10
	dir := filepath.Join(t.TempDir(), "bucket")
	metas, err := dataset.WholeMetric("x", 1, 2500, 30_000).Write(context.Background(), dir, dataset.WriteOptions{})
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
		t.Fatalf("%d heads changed: the test shows nothing", changed)
	}
	g := startGateway(t, dir, gatewayOptions{})
	before := allocated()
	err = g.server.Series(wholeMetric(64), &sink{ctx: t.Context()})
	if status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), id+"/chunks/000001: chunk record at offset 8") {
		t.Errorf("got %v, want Aborted that names the record", err)
	}
	if took := allocated() - before; took > 64<<20 {
		t.Errorf("the request took %d MiB on its way", took>>20)
	}
}

// allocated returns the bytes that were ever allocated.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// seriesList is a dataset's series, one by one.
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

// metricOf returns n series of one metric, with the labels that more has for each.
func metricOf(n int, more func(i int) []string) (out seriesList) {
	for i := range n {
		ls := append([]string{"__name__", dataset.WholeMetricName, "pod", fmt.Sprintf("%07d", i)}, more(i)...)
		out = append(out, dataset.Series{Labels: labels.FromStrings(ls...), Kind: dataset.Ratio, Seed: uint64(i)})
	}
	return out
}

// writeMetric writes one block of two hours with the series, changed as change says, and returns its bucket.
func writeMetric(t *testing.T, series seriesList, change func(*dataset.Block)) (dir string, meta *dataset.Meta) {
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
	metas, err := dataset.Layout{Name: "metric", Blocks: []dataset.Block{b}}.Write(context.Background(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return dir, metas[0]
}

// TestLongChunkRecordsAreReserved: records that are longer than their bounds, for which meta.json has no largest size, are read and copied again, and asked
// for before: the request holds what it has reserved.
func TestLongChunkRecordsAreReserved(t *testing.T) {
	dir, meta := writeMetric(t, metricOf(60, func(int) []string { return nil }), func(b *dataset.Block) {
		b.MaxTime, b.Interval, b.SamplesPerChunk = b.MinTime+20_000*10_000, 10_000, 20_000
	})
	editMeta(t, dir, meta, func(m map[string]any) { delete(m["thanos"].(map[string]any), "index_stats") })
	g := startGateway(t, dir, gatewayOptions{indexBytes: -1, setBytes: -1, chunkBytes: -1, postingsBytes: -1})
	heldOf(t, g, "long records", wholeMetric(0), 1)
}
