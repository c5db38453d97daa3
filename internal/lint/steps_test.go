package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	stepFile = regexp.MustCompile("`([a-z/]+\\.go)`: ((?:`[A-Za-z.]+`(?:, )?)+)")
	stepName = regexp.MustCompile("`([A-Za-z.]+)`")
)

// TestStepsNameWhatIsThere checks that each file of ARCHITECTURE.md's tables of steps declares the
// functions, methods and types that the table names after it.
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
