package dataset_test

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"larder/benchmarks/dataset"
)

// TestBench50kHasItsSize: the block of the speed targets has the size that they assume, about
// 100,000 chunks, 39 MB on the wire.
func TestBench50kHasItsSize(t *testing.T) {
	t.Parallel()
	l := dataset.Bench50k(1)
	_, metas := write(t, l, dataset.WriteOptions{})
	m := metas[0]
	if m.Stats.NumSeries != 50_000 || m.Stats.NumChunks != 100_000 ||
		m.Stats.NumSamples != 12_000_000 {
		t.Errorf("stats %+v", m.Stats)
	}
	var wire int64
	for _, f := range m.Thanos.Files {
		if strings.HasPrefix(f.RelPath, "chunks/") {
			wire += f.SizeBytes
		}
	}
	// A chunk's record has 7 bytes around the data. On the wire are its times, type, hash, and the
	// lengths of all these.
	const perChunk = (1 + 6 + 1 + 6) + (2 + 9 + 3 + 3 + 3) - 7
	wire += perChunk * int64(m.Stats.NumChunks)
	field := func(s string) int64 { return 2 + int64(len(s)) }
	for s := range l.Blocks[0].Series.Series() {
		if name := s.Labels.Get(labels.MetricName); name != dataset.WholeMetricName {
			t.Fatalf("metric %s", name)
		}
		for _, ls := range []labels.Labels{s.Labels, l.Blocks[0].Labels} {
			ls.Range(func(l labels.Label) { wire += 2 + field(l.Name) + field(l.Value) })
		}
	}
	if wire < 38e6 || wire > 40e6 {
		t.Errorf("the answer is about %.1f MB", float64(wire)/1e6)
	}
}
