package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	stepFile = regexp.MustCompile("`([a-z/]+\\.go)`: ((?:`[A-Za-z.]+`(?:, )?)+)")
	stepName = regexp.MustCompile("`([A-Za-z.]+)`")
)

// TestStepsNameWhatIsThere: each file in ARCHITECTURE.md's tables of steps declares the functions,
// methods and types that the table names.
func TestStepsNameWhatIsThere(t *testing.T) {
	root := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, m := range stepFile.FindAllStringSubmatch(string(page), -1) {
		source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(m[1])))
		if err != nil {
			t.Errorf("ARCHITECTURE.md: %v", err)
			continue
		}
		for _, n := range stepName.FindAllStringSubmatch(m[2], -1) {
			checked++
			declared := `(?m)^(?:func|type) ` + n[1] + `\b`
			if of, method, ok := strings.Cut(n[1], "."); ok {
				declared = `(?m)^func \(\w+ \*?` + of + `\) ` + method + `\(`
			}
			if !regexp.MustCompile(declared).Match(source) {
				t.Errorf("ARCHITECTURE.md: %s does not declare %s", m[1], n[1])
			}
		}
	}
	if checked < 20 {
		t.Errorf("found %d functions in the tables of steps, want at least 20", checked)
	}
}

// TestLayersAreDrawn checks that the picture of layers in ARCHITECTURE.md is the one that
// TestImportsPointDown checks the imports against, from the top down.
func TestLayersAreDrawn(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, picture, begin := strings.Cut(string(text), "```layers\n")
	picture, _, end := strings.Cut(picture, "```")
	if !begin || !end {
		t.Fatal("ARCHITECTURE.md has no block of layers")
	}
	drawn := strings.Split(picture, "---\n")
	if len(drawn) != len(layers) {
		t.Fatalf("ARCHITECTURE.md draws %d layers, internal/lint has %d", len(drawn), len(layers))
	}
	for i, names := range layers {
		got, want := strings.Fields(drawn[len(drawn)-1-i]), slices.Clone(names)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("ARCHITECTURE.md draws the layer %v, internal/lint has %v", got, want)
		}
	}
}
