package chart

import (
	"encoding/json"
	"path/filepath"
	"testing"
)

// TestDashboards: each dashboard of the chart is in a ConfigMap of its own, unchanged, with the
// labels that the sidecar of Grafana looks for and in the namespace that it watches. Without the
// value there is none.
func TestDashboards(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(chartDir, "files", "dashboards", "*.json"))
	if err != nil || len(files) != 6 {
		t.Fatalf("%d dashboards, %v, want 6", len(files), err)
	}
	for given, want := range map[string]map[string]string{
		"":                            nil,
		`dashboards: {enabled: true}`: {"grafana_dashboard": "1"},
		`dashboards: {enabled: true, namespace: grafana, labels: {team: a}}`: {
			"grafana_dashboard": "1", "team": "a",
		},
	} {
		rendered, err := render(required, given)
		if err != nil {
			t.Fatal(err)
		}
		o, err := decode(texts(rendered))
		if err != nil {
			t.Fatal(err)
		}
		titles := map[string]bool{}
		for _, c := range o.configs {
			for name, text := range c.Data {
				if filepath.Ext(name) != ".json" {
					continue
				}
				var d struct{ Title, UID string }
				if err := json.Unmarshal([]byte(text), &d); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if d.UID+".json" != name {
					t.Errorf("%s is dashboard %s", name, d.UID)
				}
				titles[d.Title] = true
				for label, value := range want {
					if c.Labels[label] != value {
						t.Errorf("%s: label %s is not %q: %v", c.Name, label, value, c.Labels)
					}
				}
				if _, ok := want["team"]; ok && c.Namespace != "grafana" {
					t.Errorf("%s is in namespace %s", c.Name, c.Namespace)
				}
			}
		}
		if n := len(titles); n != 0 && want == nil || n != len(files) && want != nil {
			t.Errorf("values %q: %d dashboards", given, n)
		}
	}
}
