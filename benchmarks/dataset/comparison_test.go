package dataset_test

import (
	"testing"

	"larder/benchmarks/dataset"
)

// TestComparisonLayouts writes the layouts of the comparison at a small size and checks each block
// with Prometheus's reader.
func TestComparisonLayouts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		layout dataset.Layout
		blocks int
		series uint64 // of the last block
	}{
		{dataset.Medium(1, 7), 13, 7 * dataset.SeriesPerPod},
		{dataset.Large(1, 12), 1, 12 * dataset.SeriesPerPod},
		{dataset.Many(1, 20), 20, 100},
		{dataset.Month(1, 13), 13, 20 * dataset.SeriesPerPod},
		{dataset.Crowded(1, 20), 20, 8},
		{dataset.Downsampled(1, 2), 3, 40},
		{dataset.Histograms(1, 3), 2, 3},
	} {
		dir, metas := write(t, c.layout, dataset.WriteOptions{})
		if len(metas) != c.blocks {
			t.Errorf("%s: %d blocks, want %d", c.layout.Name, len(metas), c.blocks)
		}
		if got := metas[len(metas)-1].Stats.NumSeries; got != c.series {
			t.Errorf("%s: %d series, want %d", c.layout.Name, got, c.series)
		}
		for i, m := range metas {
			verifyBlock(t, dir+"/"+m.ULID.String(), c.layout.Blocks[i], m)
		}
	}
}
