package store_test

import (
	"context"
	"io"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"larder/benchmarks/dataset"
	"larder/internal/localfs"
	"larder/store/indexheader"
	"larder/store/storepb"
)

// TestALabelRequestOpensFewHeaders checks that a label request for many blocks has only as many
// headers open as it reads concurrently, and opens each once, even if the limit on open headers is
// small. Open headers are wholly in memory.
func TestALabelRequestOpensFewHeaders(t *testing.T) {
	const blocks, sideBySide = 100, 32
	dir := filepath.Join(t.TempDir(), "bucket")
	if _, err := dataset.ManyBlocks("m", 1, blocks).
		Write(context.Background(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	all := startGateway(t, dir, gatewayOptions{})
	for name, ask := range map[string]func(g *gateway) ([]string, error){
		"names": func(g *gateway) ([]string, error) {
			r, err := g.client.LabelNames(t.Context(), &storepb.LabelNamesRequest{End: 1 << 50})
			return r.GetNames(), err
		},
		"values": func(g *gateway) ([]string, error) {
			r, err := g.client.LabelValues(t.Context(), &storepb.LabelValuesRequest{Label: "pod",
				End: 1 << 50})
			return r.GetValues(), err
		},
	} {
		t.Run(name, func(t *testing.T) {
			want, err := ask(all)
			if err != nil || len(want) == 0 {
				t.Fatal(want, err)
			}
			g := startGateway(t, dir, gatewayOptions{
				headers: func(o *indexheader.Options) { o.Dir, o.MaxOpenBytes = localfs.Dir{}, 1 },
			})
			var most atomic.Int64
			g.bucket.setOnRead(
				func(_ string, _, _ int64, body io.ReadCloser) (io.ReadCloser, error) {
					now := int64(plainGauge(g, "larder_header_open"))
					for was := most.Load(); now > was &&
						!most.CompareAndSwap(was, now); was = most.Load() {
					}
					return body, nil
				},
			)
			if got, err := ask(g); err != nil || !slices.Equal(got, want) {
				t.Errorf("got %v, %v; want %v", got, err, want)
			}
			if n := most.Load(); n > sideBySide || n == 0 {
				t.Errorf("%d headers were open at once", n)
			}
			if reads, _ := g.bucket.take(); reads["index"] != blocks {
				t.Errorf("reads %v, want one of each of %d indexes", reads, blocks)
			}
		})
	}
}

// plainGauge returns the value of a gauge without labels, -1 if there is none.
func plainGauge(g *gateway, name string) float64 {
	families, err := g.reg.Gather()
	if err != nil {
		return -1
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return -1
}
