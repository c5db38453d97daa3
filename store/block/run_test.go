package block

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"larder/store/catalog"
)

// TestSmallPlansAreOneRun counts the reads of streams: one if the plan has no more entries than a
// run and no more pages than two, however far its series lie apart.
func TestSmallPlansAreOneRun(t *testing.T) {
	const series, page = 20_000, 512
	b, pages := openStreamBlock(
		t, writeStreamIndex(t, wideSeries(series)), page,
		catalog.Block{NumSeries: series, SeriesMaxSize: 200},
	)
	for _, tc := range []struct {
		name, label, value string
		runBytes           int64
		one                bool
	}{
		{"scattered", "tenth", "3", 1 << 20, true},
		{"more pages than two runs have", "tenth", "3", 128 << 10, false},
		{"more entries than a run has", "", "", 256 << 10, false},
	} {
		m := everything()
		if tc.label != "" {
			m = labels.MustNewMatcher(labels.MatchEqual, tc.label, tc.value)
		}
		p := planStream(t, b, []*labels.Matcher{m}, false)
		var reads atomic.Int64
		pages.instead = func(context.Context) error { reads.Add(1); return nil }
		got, _ := readStream(
			t, p.Stream(context.Background(), StreamOptions{MaxTime: 1, RunBytes: tc.runBytes}),
		)
		pages.instead = nil
		p.Close()
		if n := reads.Load(); len(got) == 0 || (n == 1) != tc.one {
			t.Errorf("%s: %d series in %d reads", tc.name, len(got), n)
		}
	}
}
