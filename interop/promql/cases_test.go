package promql

import (
	"math"
	"path/filepath"
	"strconv"
	"testing"

	"larder/interop/internal/neighbour"
)

// TestQueryCases asks a Querier that removes the replica label for sums over the buckets of
// testdata/cases. The values are known, and must be the same over Thanos's store.
func TestQueryCases(t *testing.T) {
	s := newStage(t)
	larders, stores := map[string]string{}, map[string]string{}
	var endpoints []string
	const (
		instant = 1000
		early   = 1700000000000
		late    = 1700006400000
	)
	questions := []struct {
		bucket, query string
		at            int64
		want          float64
	}{
		{"unordered-labels", `sum(m)`, late + 3_600_000, 60},
		{"unordered-labels", `count(m)`, late + 3_600_000, 1},
		{"unordered-labels-replica", `count(e2e)`, early + 1_700_000, 40},
		{"unordered-labels-replica", `sum(rate(e2e[5m]))`, early + 1_700_000, 2.667},
		{"unordered-series", `count({__name__=~".+"})`, early + 10_000, 305},
		{"stale-index-size", `count({__name__=~".+"})`, late + 3_600_000, 4},
		{"stale-size-index-large", `count({__name__=~".+"})`, early + 3_600_000, 30},
		{"stale-size-chunk-small", `count({__name__=~".+"})`, early + 3_600_000, 30},
		{"one-instant", `count({__name__=~".+"})`, instant, 1},
	}
	for _, x := range questions {
		if larders[x.bucket] != "" {
			continue
		}
		dir := filepath.Join("..", "testdata", "cases", x.bucket)
		larders[x.bucket], stores[x.bucket] = s.larderOver(dir), s.storeOver(dir)
		endpoints = append(endpoints, larders[x.bucket], stores[x.bucket])
	}
	q := s.querier(endpoints, "--query.replica-label=replica")
	for _, x := range questions {
		for _, side := range []struct{ name, addr string }{{"larder", larders[x.bucket]},
			{"thanos store", stores[x.bucket]}} {
			r, err := q.Instant(
				t.Context(), x.query, x.at, at(neighbour.Params{}, []string{side.addr}),
			)
			if err != nil {
				t.Fatal(err)
			}
			if !r.OK() || len(r.Series) != 1 {
				t.Errorf(
					"%s, %s over %s: %d series, error %q, warnings %q", x.bucket, x.query,
					side.name, len(r.Series), r.Error, r.Warnings,
				)
				continue
			}
			got, err := strconv.ParseFloat(r.Series[0].Points[0].Value, 64)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(got-x.want) > 0.0005 {
				t.Errorf(
					"%s, %s over %s: got %v, want %v", x.bucket, x.query, side.name, got, x.want,
				)
			}
		}
	}
	if t.Failed() {
		return
	}
	t.Logf("proved: %d PromQL values over buckets of other writers are right", len(questions))
}
