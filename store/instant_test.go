package store_test

import (
	"path/filepath"
	"testing"

	"larder/benchmarks/dataset"
	"larder/store/storepb"
)

// TestABlockOfOneInstant checks for which time ranges a block with minTime = maxTime is served.
// Thanos reads a block if its minTime <= max_time and its maxTime > min_time.
func TestABlockOfOneInstant(t *testing.T) {
	dir, id := podsBlock(t, pods{"a", 3, 0})
	meta, err := dataset.ReadMeta(filepath.Join(dir, id))
	if err != nil {
		t.Fatal(err)
	}
	const at = dataset.Epoch + 3600_000 // in the middle of the chunks
	editMeta(t, dir, meta,
		func(m map[string]any) { m["minTime"], m["maxTime"] = int64(at), int64(at) })
	g := startGateway(t, dir, gatewayOptions{})
	for _, tc := range []struct {
		minT, maxT int64
		want       int
	}{{0, 1 << 50, 3}, {at - 1, at, 3}, {at - 1, at + 1, 3}, {at, at, 0}, {at, at + 1, 0},
		{0, at - 1, 0}} {
		req := wholeMetric(1)
		req.MinTime, req.MaxTime = tc.minT, tc.maxT
		a, err := g.query(t.Context(), req)
		if err != nil || len(a.series) != tc.want {
			t.Errorf("[%d,%d]: %d series, %v; want %d",
				tc.minT-at, tc.maxT-at, len(a.series), err, tc.want)
		}
		v, err := g.client.LabelValues(t.Context(),
			&storepb.LabelValuesRequest{Label: "pod", Start: tc.minT, End: tc.maxT})
		if err != nil || len(v.Values) != tc.want {
			t.Errorf("[%d,%d]: %d values, %v; want %d",
				tc.minT-at, tc.maxT-at, len(v.GetValues()), err, tc.want)
		}
	}
}
