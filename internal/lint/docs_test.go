package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	makeRule   = regexp.MustCompile(`(?m)^([a-z][a-z/_-]*):`)
	phonyRules = regexp.MustCompile(`(?m)^\.PHONY: (.*)$`)
	saidRule   = regexp.MustCompile("`make ([a-z][a-z-]*)")
	saidTest   = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9_]*)")
	testFunc   = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Za-z0-9_]+)\(`)
)

// TestDocumentsNameWhatIsThere: a promise that names the test or the command that holds it is worth
// as much as they are there. A rule of the Makefile that is only declared does nothing and
// succeeds.
func TestDocumentsNameWhatIsThere(t *testing.T) {
	root := filepath.Join("..", "..")
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}

	makefile := read("Makefile")
	rules := make(map[string]bool)
	for _, m := range makeRule.FindAllStringSubmatch(makefile, -1) {
		rules[m[1]] = true
	}
	for _, m := range phonyRules.FindAllStringSubmatch(makefile, -1) {
		for rule := range strings.FieldsSeq(m[1]) {
			if !rules[rule] {
				t.Errorf(
					"Makefile: %s is declared, but there is no rule: make would say that there is nothing to be done",
					rule,
				)
			}
		}
	}

	tests := make(map[string]bool)
	for _, f := range tree(t) {
		for _, m := range testFunc.FindAllStringSubmatch(f.text, -1) {
			tests[m[1]] = true
		}
	}

	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, more...) {
		name, err := filepath.Rel(root, page)
		if err != nil {
			t.Fatal(err)
		}
		text := read(name)
		for _, m := range saidRule.FindAllStringSubmatch(text, -1) {
			if !rules[m[1]] {
				t.Errorf("%s: make %s: the Makefile has no such rule", name, m[1])
			}
		}
		for _, m := range saidTest.FindAllStringSubmatch(text, -1) {
			if !tests[m[1]] {
				t.Errorf("%s: there is no %s", name, m[1])
			}
		}
	}
}
