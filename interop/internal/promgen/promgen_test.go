package promgen

import (
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

func TestQueriesParse(t *testing.T) {
	o := Options{
		From:     0,
		To:       3_600_000,
		External: map[string][]string{"cluster": {"a"}, "replica": {"0", "1"}},
	}
	g, again := New(1, o), New(1, o)
	old := 0
	for i := range 3000 {
		q := g.Next()
		if q != again.Next() {
			t.Fatalf("query %d differs the second time: %s", i, q)
		}
		if _, err := parser.ParseExpr(q.Text); err != nil {
			t.Errorf("%s: %v", q.Text, err)
		}
		if q.Old {
			old++
		}
	}
	if old < 300 {
		t.Errorf("%d of 3000 queries mean the same in Prometheus 2, want a tenth at least", old)
	}
}
