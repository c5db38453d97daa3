package chart

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestManifests: the plain manifests are what the chart renders from the values beside them.
// CHART_REWRITE=1 writes them.
func TestManifests(t *testing.T) {
	root := filepath.Join("..", "..", "deploy", "manifests")
	for _, name := range []string{"three-shards", "two-zones", "monitoring"} {
		given, err := os.ReadFile(filepath.Join(root, name, "values.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		rendered, err := renderAs("larder", string(given))
		if err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		want.WriteString(
			"# Rendered from deploy/helm/larder and values.yaml: do not edit. Change the " +
				"image and the\n# name of the Secret for your cluster, or render the chart yourself.\n",
		)
		for _, doc := range texts(rendered) {
			if name == "monitoring" && !monitors(doc) {
				continue
			}
			want.WriteString("---\n" + plain(doc) + "\n")
		}
		file := filepath.Join(root, name, "larder.yaml")
		if os.Getenv("CHART_REWRITE") != "" {
			if err := os.WriteFile(file, []byte(want.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want.String() {
			t.Errorf("%s is not what the chart renders: %s\nrun `make manifests`", file,
				firstDifference(string(got), want.String()))
		}
		if _, err := decode(strings.Split(string(got), "\n---\n")[1:]); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// monitors returns whether a document is an alert or a dashboard.
func monitors(doc string) bool {
	return strings.Contains(doc, "kind: PrometheusRule\n") ||
		strings.Contains(doc, "grafana_dashboard:")
}

// plain removes the labels that say that Helm manages an object.
func plain(doc string) string {
	var out []string
	for line := range strings.Lines(doc) {
		if !strings.Contains(line, "helm.sh/chart:") &&
			!strings.Contains(line, "app.kubernetes.io/managed-by:") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// firstDifference describes the first line in which two texts differ.
func firstDifference(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return "it has " + a[i] + ", the chart " + b[i]
		}
	}
	return "one is longer"
}
