package prefetch_test

import (
	"testing"

	"larder/benchmarks/dataset"
)

// big is a block whose index is larger than what a header reads at once, with series that fill a
// few megabytes.
func big() dataset.Layout { return dataset.WholeMetric("prefetch", 1, 20_000, 30_000) }

// TestColdQueriesReadNoIndex: after prefetch a query reads nothing of an index from the bucket.
// Header and prefetch together read each byte of an index at most once. A restart reads nothing.
func TestColdQueriesReadNoIndex(t *testing.T) {
	for _, l := range []dataset.Layout{big(), dataset.Medium(1, 20)} {
		p := write(t, l)
		p.start(t, options{}, func(t *testing.T, e *env) {
			e.finish(t)
			reads := e.bucket.take()
			if len(reads) == 0 {
				t.Error("nothing was read")
			}
			if twice := overlap(reads); twice != "" {
				t.Errorf("read twice: %s", twice)
			}
			e.ask(t, dataset.WholeMetricName)
			if reads := e.bucket.take(); len(reads) > 0 {
				t.Errorf("a query read %v", reads)
			}
		})
		p.start(t, options{}, func(t *testing.T, e *env) {
			e.finish(t)
			e.ask(t, dataset.WholeMetricName)
			if reads := e.bucket.take(); len(reads) > 0 {
				t.Errorf("after a restart: %v", reads)
			}
			if n := e.metric(t, "blocks_total", "done"); n != float64(len(l.Blocks)) {
				t.Errorf("%v blocks are done, want %d", n, len(l.Blocks))
			}
		})
	}
}
