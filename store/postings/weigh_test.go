package postings

import (
	"testing"

	"larder/internal/bucket/cost"
	"larder/internal/pagecache"
	"larder/store/indexheader"
)

// ofBlock returns the scales of an object store and a block with entries of 70 bytes.
func ofBlock() scales { return newScales(cost.Model{}, &request{seriesBytes: 70}) }

func TestScatteredEntriesCostARequestEach(t *testing.T) {
	s := ofBlock()
	const all = 100_000
	requests := func(c candidates) float64 { return s.entries(c) / s.perRequest }
	if got := requests(candidates{n: 10, among: all}); got < 10 || got > 12 {
		t.Errorf("ten of 100,000 series cost as much as %.1f requests", got)
	}
	if got := requests(candidates{n: 10, among: 10}); got < 1 || got > 2 {
		t.Errorf("ten neighbours cost as much as %.1f requests", got)
	}
	// Fewer candidates never cost much more, and neighbours never cost more than scattered series.
	last := 0.0
	for n := 1.0; n <= all; n *= 1.1 {
		got := s.entries(candidates{n: n, among: all})
		if got < last*0.9 {
			t.Errorf("%.0f series cost %.0f ns, fewer cost %.0f ns", n, got, last)
		}
		if near := s.entries(candidates{n: n, among: n}); near > got*1.001 {
			t.Errorf("%.0f neighbours cost %.0f ns, scattered series %.0f ns", n, near, got)
		}
		last = max(last, got)
	}
}

func TestListsCostLessBesideOthers(t *testing.T) {
	s := ofBlock()
	l := listing{}
	for i := range int64(100) {
		l.add(indexheader.List{Off: 1<<20 + i*4000, End: 1<<20 + i*4000 + 400})
	}
	alone := s.lists(&l, nil)
	if alone > 20*s.perRequest {
		t.Errorf("100 lists near one another cost as much as %.0f requests", alone/s.perRequest)
	}
	at := l.extent()
	if want := (pagecache.Span{Off: 1 << 20, End: 1<<20 + 99*4000 + 400}); at != want {
		t.Errorf("extent %v, want %v", at, want)
	}
	for _, c := range []struct {
		name  string
		other pagecache.Span
		saved float64 // requests
	}{
		{"adjoining", pagecache.Span{Off: at.End, End: at.End + 100}, 1},
		{"overlapping", pagecache.Span{Off: 0, End: at.Off + 1}, 1},
		{"far away", pagecache.Span{Off: at.End + 100<<20, End: at.End + 101<<20}, 0},
	} {
		if got := (alone - s.lists(&l, []pagecache.Span{c.other})) / s.perRequest; got != c.saved {
			t.Errorf("%s: %.2f requests saved, want %.2f", c.name, got, c.saved)
		}
	}
}

// TestCandidatesAreEstimated checks the estimate for the series of a pod that have three other
// labels as well.
func TestCandidatesAreEstimated(t *testing.T) {
	const series = 100_000
	c := candidates{n: series, among: series}
	for _, g := range []*group{
		{name: "pod", adds: true, listing: listing{refs: 98}},
		{name: "__name__", adds: true, listing: listing{refs: 50_000}},
		{name: "code", listing: listing{refs: 80_000}},
	} {
		c = c.after(g, series)
	}
	if want := (candidates{n: 98 * 0.5 * 0.2, among: 50_000}); c.among != want.among ||
		c.n < want.n*0.99 || c.n > want.n*1.01 {
		t.Errorf("got %+v, want %+v", c, want)
	}
}
