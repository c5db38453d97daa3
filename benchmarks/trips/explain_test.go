package trips

import (
	"testing"
	"testing/synctest"

	"larder/benchmarks/inprocess"
	"larder/benchmarks/objectstore"
	"larder/internal/explanation"
	"larder/store/storepb"
)

// explained calls explain with a cold gateway. It returns what the bucket has counted besides.
func explained(t *testing.T, p place, explain func(
	*testing.T, *inprocess.Gateway) (*explanation.Explanation, error),
) (out *explanation.Explanation, index, chunks volume) {
	t.Helper()
	withGateway(t, p, nil, func(t *testing.T, g *inprocess.Gateway, b *objectstore.Bucket) {
		b.Record(true)
		var err error
		if out, err = explain(t, g); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r := result{reads: b.Reads()}
		index, chunks = r.volume("/index"), r.volume("/chunks/")
	})
	return out, index, chunks
}

func volumeOf(phases ...explanation.Phase) (v volume) {
	for _, p := range phases {
		v.reads += int(p.Read.Requests)
		v.bytes += p.Read.Bytes
	}
	return v
}

// within reports whether a and b differ by less than a factor, or by one.
func within(a, b int64, factor float64) bool {
	lo, hi := float64(min(a, b)), float64(max(a, b))
	return hi <= lo*factor || hi-lo <= 1
}

// TestExplainForeseesReads explains cold Series requests, and runs them with another cold gateway.
// Reads of the index are foreseen exactly. Requests for chunks are foreseen within a factor of 2
// and the bytes of their pages within a factor of 4; where the caches have the series entries, both
// are exact. Bytes of gaps that are read along have no bound. What a run reports is what the bucket
// has counted.
func TestExplainForeseesReads(t *testing.T) {
	for _, s := range sets() {
		p := write(t, s.layout)
		for _, q := range questions() {
			if q.set != s.name || q.values != "" || q.names {
				continue
			}
			req := &storepb.SeriesRequest{
				MinTime: p.from, MaxTime: p.to, Matchers: q.matchers, ResponseBatchSize: 64,
			}
			want, index, chunks := explained(t, p, func(
				t *testing.T, g *inprocess.Gateway,
			) (*explanation.Explanation, error) {
				return g.Server.Explain(t.Context(), req)
			})
			if index != volumeOf(want.Total.Postings) || chunks != (volume{}) {
				t.Errorf("%s: explaining it read %v of indexes and %v of chunks, want %v and none",
					q.name, index, chunks, volumeOf(want.Total.Postings))
			}
			got, index, chunks := explained(t, p, func(
				t *testing.T, g *inprocess.Gateway,
			) (*explanation.Explanation, error) {
				return g.Server.ExplainRun(t.Context(), req)
			})
			total := got.Total
			if index != volumeOf(total.Postings, total.Series) || chunks != volumeOf(total.Chunks) {
				t.Errorf("%s: the run reports %v of indexes and %v of chunks, the bucket %v and %v",
					q.name, volumeOf(total.Postings, total.Series), volumeOf(total.Chunks),
					index, chunks)
			}
			compareForecast(t, q.name, &want.Total, &total)
		}
	}
}

func compareForecast(t *testing.T, name string, want, got *explanation.Phases) {
	t.Helper()
	if w, g := volumeOf(want.Postings), volumeOf(got.Postings); w != g {
		t.Errorf("%s: postings: foresaw %v, read %v", name, w, g)
	}
	if w, g := volumeOf(want.Series), volumeOf(got.Series); w != g {
		t.Errorf("%s: series: foresaw %v, read %v", name, w, g)
	}
	w, g := want.Chunks, got.Chunks
	if !w.Estimated && volumeOf(w) != volumeOf(g) {
		t.Errorf("%s: chunks: foresaw %v exactly, read %v", name, volumeOf(w), volumeOf(g))
	}
	if !within(w.Read.Requests, g.Read.Requests, 2) || !within(w.Needed.Bytes, g.Needed.Bytes, 4) {
		t.Errorf("%s: chunks: foresaw %d requests for pages of %d bytes, took %d and %d", name,
			w.Read.Requests, w.Needed.Bytes, g.Read.Requests, g.Needed.Bytes)
	}
	if w.Items != g.Items {
		t.Errorf("%s: foresaw %d chunks, got %d", name, w.Items, g.Items)
	}
}
