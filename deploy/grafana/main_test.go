package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFilesAreGenerated: the committed dashboards are what this program writes, and no other.
func TestFilesAreGenerated(t *testing.T) {
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join("..", "helm", "larder", "files", "dashboards")
	there, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(there) != len(files) {
		t.Errorf("%s has %d files, want %d", dir, len(there), len(files))
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the program writes: run `make dashboards`", name)
		}
	}
}

// TestPanelsExplainThemselves: each panel has a title of its own and a query, and stays within the
// width of the dashboard. Panels do not overlap.
func TestPanelsExplainThemselves(t *testing.T) {
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		var d struct {
			Panels []struct {
				Type, Title, Description string
				Targets                  []json.RawMessage
				GridPos                  struct{ H, W, X, Y int }
			}
		}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		titles, taken := map[string]bool{}, map[[2]int]string{}
		for _, p := range d.Panels {
			if p.Type == "row" {
				continue
			}
			if p.Title == "" || titles[p.Title] || len(p.Targets) == 0 {
				t.Errorf("%s: panel %q has no query, or no title of its own", name, p.Title)
			}
			titles[p.Title] = true
			if p.GridPos.X+p.GridPos.W > 24 {
				t.Errorf("%s: panel %q is beyond the right edge", name, p.Title)
			}
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" {
						t.Fatalf("%s: panels %q and %q overlap", name, other, p.Title)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
		}
	}
}

var (
	spanName = regexp.MustCompile(`[{ ]name=~?"([^"]+)"`)
	spanAttr = regexp.MustCompile(`\bspan\.(larder\.[a-z_.]+)`)
)

// TestSpansAreDocumented: the spans and attributes that the queries ask for are those of
// docs/observability.md.
func TestSpansAreDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "observability.md"))
	if err != nil {
		t.Fatal(err)
	}
	var queries []string
	for _, r := range traces().rows {
		for _, p := range r.panels {
			for _, q := range p.queries {
				queries = append(queries, q.expr)
			}
		}
	}
	text := strings.Join(queries, "\n")
	names := spanName.FindAllStringSubmatch(text, -1)
	attrs := spanAttr.FindAllStringSubmatch(text, -1)
	if len(names) < 10 || len(attrs) < 5 {
		t.Fatalf("%d names and %d attributes in the queries", len(names), len(attrs))
	}
	for _, m := range names {
		name := strings.TrimSuffix(m[1], ".*") // a prefix of names
		if !strings.Contains(string(page), "`"+name) {
			t.Errorf("docs/observability.md has no span %s", m[1])
		}
	}
	for _, m := range attrs {
		field := strings.TrimPrefix(m[1], "larder.")
		if !strings.Contains(string(page), "`"+m[1]+"`") &&
			!strings.Contains(string(page), "`"+field+"`") {
			t.Errorf("docs/observability.md has no attribute %s", m[1])
		}
	}
}
