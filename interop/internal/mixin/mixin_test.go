package mixin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRules(t *testing.T) {
	es, err := Rules(write(t, "alerts.yaml", `
groups:
- name: store
  rules:
  - alert: Slow
    expr: (histogram_quantile(0.99, sum by (le) (rate(a_bucket{job=~".*thanos-store.*"}[5m]))) > 2 and sum(rate(b{job="x"}[5m])) > 0)
  - record: r
    expr: sum(other{job="thanos-query"})
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(es) != 1 || es[0].Name != "Slow" || es[0].Where != "alerts.yaml: store: Slow" ||
		len(es[0].Selectors()) != 2 {
		t.Fatalf("got %+v", es)
	}
	got, err := es[0].WithoutThresholds()
	if err != nil {
		t.Fatal(err)
	}
	const want = `(histogram_quantile(0.99, sum by (le) (rate(a_bucket{job=~".*thanos-store.*"}[5m]))) and sum(rate(b{job="x"}[5m])))`
	if got != want {
		t.Errorf("without thresholds: %s", got)
	}
}

func TestDashboard(t *testing.T) {
	p := write(t, "d.json", `{"rows": [
		{"title": "Store", "panels": [{"title": "P", "targets": [{"expr": "rate(a{job=~\"$job\"}[$interval])"}]}]},
		{"title": "Rule", "panels": [{"targets": [{"expr": "b"}]}]}]}`)
	es, err := Dashboard(p, map[string]string{"job": "thanos-store", "interval": "5m"}, "Store")
	if err != nil {
		t.Fatal(err)
	}
	if len(es) != 1 || es[0].Text != `rate(a{job=~"thanos-store"}[5m])` ||
		es[0].Where != "d.json: Store: P" {
		t.Errorf("got %+v", es)
	}
	if _, err := Dashboard(p, map[string]string{"job": "thanos-store"}); err == nil ||
		!strings.Contains(err.Error(), "$interval") {
		t.Errorf("a variable without a value: %v", err)
	}
}
