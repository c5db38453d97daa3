package store_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/benchmarks/dataset"
	"larder/benchmarks/rawindex"
	"larder/internal/localfs"
	"larder/store"
	"larder/store/irregular"
	"larder/store/storepb"
)

// bendIndex rewrites the index of a block with the series that change returns.
func bendIndex(
	t *testing.T, dir string, meta *dataset.Meta, change func([]rawindex.Series) []rawindex.Series,
) {
	t.Helper()
	path := filepath.Join(dir, meta.ULID.String(), "index")
	r, err := index.NewFileReader(path, index.DecodePostingsRaw)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	name, value := index.AllPostingsKey()
	p, err := r.Postings(context.Background(), name, value)
	if err != nil {
		t.Fatal(err)
	}
	var series []rawindex.Series
	var sb labels.ScratchBuilder
	var metas []chunks.Meta
	for p.Next() {
		if err := r.Series(p.At(), &sb, &metas); err != nil {
			t.Fatal(err)
		}
		var s rawindex.Series
		sb.Labels().
			Range(func(l labels.Label) {
				s.Labels = append(s.Labels, rawindex.Label{Name: l.Name, Value: l.Value})
			})
		for _, m := range metas {
			s.Chunks = append(s.Chunks,
				rawindex.Chunk{Ref: uint64(m.Ref), MinTime: m.MinTime, MaxTime: m.MaxTime})
		}
		series = append(series, s)
	}
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	data, err := rawindex.Encode(change(series))
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	editMeta(t, dir, meta, func(m map[string]any) { delete(m["thanos"].(map[string]any), "files") })
}

// lastReversed reverses the stored labels of the last series.
func lastReversed(series []rawindex.Series) []rawindex.Series {
	slices.Reverse(series[len(series)-1].Labels)
	return series
}

// remembering returns options of a gateway that remembers irregular blocks in dir.
func remembering(
	t *testing.T, bucket, dir string, more func(*store.Options),
) (*gateway, *irregular.Blocks, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	known := irregular.Open(irregular.Options{Dir: localfs.At(dir), Registerer: reg})
	t.Cleanup(known.Close)
	g := startGateway(t, bucket, gatewayOptions{server: func(o *store.Options) {
		o.Blocks.Irregular = known
		if more != nil {
			more(o)
		}
	}})
	return g, known, reg
}

// TestIrregularityFoundLate queries a block of which only the last series is irregular. A request
// that has sent frames by then fails and names the block, and the next one is answered correctly. A
// request that has sent no frame is planned again and answered correctly, and so are label calls
// and requests of the next process.
func TestIrregularityFoundLate(t *testing.T) {
	for _, n := range []int{100, 12_000} {
		bucket, meta := writeMetric(t, metricOf(n, func(int) []string { return nil }), nil)
		sound, err := startGateway(t, bucket, gatewayOptions{}).query(t.Context(), wholeMetric(64))
		if err != nil || len(sound.series) != n {
			t.Fatalf("%d series of %d, %v", len(sound.series), n, err)
		}
		bendIndex(t, bucket, meta, lastReversed)
		dir := t.TempDir()
		g, known, _ := remembering(t, bucket, dir, nil)
		got, err := g.query(t.Context(), wholeMetric(64))
		if n > 1000 {
			if status.Code(err) != codes.Aborted ||
				!strings.Contains(err.Error(), meta.ULID.String()) ||
				!strings.Contains(err.Error(), "irregular") {
				t.Errorf("%d series: %v, want Aborted that names the block", n, err)
			}
			if got.frames == 0 {
				t.Error("no frame was sent before the irregular series, the test needs one")
			}
			got, err = g.query(t.Context(), wholeMetric(64))
		}
		if err != nil {
			t.Fatalf("%d series: %v", n, err)
		}
		if diff := cmp.Diff(sound.texts(), got.texts()); diff != "" {
			t.Fatalf("%d series (-want +got):\n%.2000s", n, diff)
		}
		if n := g.inUse(t); n != 0 {
			t.Errorf("%v bytes of the allowance are still reserved", n)
		}
		known.Close()

		g, _, reg := remembering(t, bucket, dir, nil)
		if v := irregularBlocks(t, reg); v != 1 {
			t.Errorf("%v irregular blocks after a restart", v)
		}
		if got, err = g.query(t.Context(), wholeMetric(64)); err != nil || len(got.series) != n {
			t.Errorf("after a restart: %d series, %v", len(got.series), err)
		}
		fresh, _, _ := remembering(t, bucket, t.TempDir(), nil)
		values, err := fresh.client.LabelValues(t.Context(), &storepb.LabelValuesRequest{
			Label:    "pod",
			End:      1 << 50,
			Matchers: wholeMetric(0).Matchers,
		})
		if err != nil || len(values.Values) != n {
			t.Errorf("label values: %d, %v", len(values.GetValues()), err)
		}
	}
}

func irregularBlocks(t *testing.T, reg *prometheus.Registry) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "larder_blocks_irregular" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("the metric is missing")
	return 0
}

// TestIrregularBlockInPasses queries an irregular block whose series need several times the memory
// of one request. All series must be sent once, in order.
func TestIrregularBlockInPasses(t *testing.T) {
	n := 12_000
	if testing.Short() {
		n = 9000
	}
	bucket, meta := writeMetric(t, metricOf(n, func(i int) []string {
		return []string{"query", fmt.Sprint(i) + strings.Repeat("q", 2000)}
	}), nil)
	bendIndex(t, bucket, meta, func(series []rawindex.Series) []rawindex.Series {
		slices.Reverse(series)
		return series
	})
	const allowance = 16 << 20
	g, _, _ := remembering(t, bucket, t.TempDir(),
		func(o *store.Options) { o.Allowance.Bytes = allowance })
	for range 2 {
		got, err := g.query(t.Context(), wholeMetric(64))
		if err != nil {
			t.Fatal(err)
		}
		if len(got.series) != n {
			t.Fatalf("%d series of %d", len(got.series), n)
		}
		for i, s := range got.series {
			if want := fmt.Sprintf("%07d", i); seriesLabels(s).Get("pod") != want {
				t.Fatalf("series %d is %s", i, seriesLabels(s).Get("pod"))
			}
		}
	}
	if n := g.inUse(t); n != 0 {
		t.Errorf("%v bytes of the allowance are still reserved", n)
	}
}

// TestAnAnswerDoesNotContinueInAnotherOrder sends series of a block in the order of its index, then
// replaces another block of the request. Meanwhile another request finds that the first block is
// irregular. The rest of the answer would now be sorted, and a series that is stored last but sorts
// first would be in neither part. The request must fail.
func TestAnAnswerDoesNotContinueInAnotherOrder(t *testing.T) {
	const n = 12_000
	dir := wholeBlock(t, n)
	old := startGateway(t, dir, gatewayOptions{}).Catalog.View().Blocks[0].ID
	if err := other(dir, old); err != nil {
		t.Fatal(err)
	}
	late := old
	late[15] ^= 0x33
	bendIndex(
		t,
		dir,
		&dataset.Meta{BlockMeta: tsdb.BlockMeta{ULID: late}},
		func(series []rawindex.Series) []rawindex.Series {
			return append(series[1:], series[0])
		},
	)
	g := startGateway(t, dir, gatewayOptions{chunkBytes: -1, indexBytes: -1, setBytes: -1})
	replacement := old
	replacement[15] ^= 0x55
	var reads atomic.Int64
	g.bucket.setOnRead(func(name string, _, _ int64, body io.ReadCloser) (io.ReadCloser, error) {
		if objectKind(name) != "chunks" || !strings.HasPrefix(name, old.String()) ||
			reads.Add(1) != 3 {
			return body, nil
		}
		req := wholeMetric(64)
		req.SkipChunks, req.Hints = true, onlyBlock(t, late)
		if _, err := g.query(context.Background(), req); err != nil &&
			!strings.Contains(err.Error(), "irregular") {
			return body, err
		}
		return body, become(dir, old, replacement, func(meta []byte) []byte { return meta })
	})
	got, err := g.query(t.Context(), wholeMetric(64))
	if reads.Load() < 3 || got.frames == 0 {
		t.Fatalf("%d reads, %d frames: the answer was not interrupted", reads.Load(), got.frames)
	}
	if status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), late.String()) {
		t.Errorf("%d series of %d, %v, want Aborted that names block %s",
			len(got.series), 2*n, err, late)
	}
	if got, err = g.query(t.Context(), wholeMetric(64)); err != nil || len(got.series) != 2*n {
		t.Errorf("second request: %d series of %d, %v", len(got.series), 2*n, err)
	}
}
