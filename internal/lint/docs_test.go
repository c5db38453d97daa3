package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

var (
	makeRule   = regexp.MustCompile(`(?m)^([a-z][a-z/_-]*):`)
	phonyRules = regexp.MustCompile(`(?m)^\.PHONY: (.*)$`)
	saidRule   = regexp.MustCompile("`make ([a-z][a-z-]*)")
	saidTest   = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9_]*)")
	testFunc   = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Za-z0-9_]+)\(`)
)

// TestDocumentsNameWhatIsThere: every test and every make target that a document names exists, and
// every target declared in the Makefile has a rule, because make succeeds without one and does
// nothing.
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
				t.Errorf("Makefile: %s is declared phony, but has no rule", rule)
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
				t.Errorf("%s: make %s: the Makefile has no such target", name, m[1])
			}
		}
		for _, m := range saidTest.FindAllStringSubmatch(text, -1) {
			if !tests[m[1]] {
				t.Errorf("%s: %s does not exist", name, m[1])
			}
		}
	}
}

var (
	mdLink    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	mdHeading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	mdCode    = regexp.MustCompile("(?ms)^```.*?^```")
	notInSlug = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// page is a Markdown document of the repository.
type page struct {
	name    string // from the root
	text    string // without code blocks
	anchors map[string]bool
}

func pages(t *testing.T) []page {
	t.Helper()
	root := filepath.Join("..", "..")
	var out []page
	for _, pattern := range []string{"*.md", "docs/*.md", "interop/*.md"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			rel, err := filepath.Rel(root, name)
			if err != nil {
				t.Fatal(err)
			}
			p := page{name: rel, text: mdCode.ReplaceAllString(string(text), "")}
			p.anchors = make(map[string]bool)
			for _, m := range mdHeading.FindAllStringSubmatch(p.text, -1) {
				p.anchors[slug(m[1])] = true
			}
			out = append(out, p)
		}
	}
	if len(out) < 10 {
		t.Fatalf("found %d documents, want at least 10", len(out))
	}
	return out
}

// slug returns the anchor that GitHub gives a heading.
func slug(heading string) string {
	s := notInSlug.ReplaceAllString(strings.ToLower(heading), "")
	return strings.ReplaceAll(s, " ", "-")
}

// TestLinksOfDocuments checks that links between documents lead to files and headings that exist.
func TestLinksOfDocuments(t *testing.T) {
	all := pages(t)
	byName := make(map[string]page)
	for _, p := range all {
		byName[p.name] = p
	}
	for _, p := range all {
		for _, m := range mdLink.FindAllStringSubmatch(p.text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := p.name
			if file != "" {
				target = filepath.Join(filepath.Dir(p.name), filepath.FromSlash(file))
			}
			if _, err := os.Stat(filepath.Join("..", "..", target)); err != nil {
				t.Errorf("%s: link to %s: there is no %s", p.name, m[1], target)
				continue
			}
			to, known := byName[target]
			if anchor != "" && known && !to.anchors[anchor] {
				t.Errorf("%s: link to %s: %s has no such heading", p.name, m[1], target)
			}
		}
	}
}

var (
	mdGenerated = regexp.MustCompile(`(?s)<!-- [a-z ]+: ?begin -->.*?<!-- [a-z ]+: ?end -->`)
	mdCellEnd   = regexp.MustCompile(`(^|[^\\])\|`)
)

const (
	// maxCell is the longest cell of a table in characters, because tables hold facts and not
	// paragraphs.
	maxCell = 120
	// maxProse is the longest line of prose in characters.
	maxProse = 100
)

// TestDocumentsAreReadable checks the length of lines and of cells. Code blocks, lines with a URL
// and parts that a test generates are exempt.
func TestDocumentsAreReadable(t *testing.T) {
	for _, p := range pages(t) {
		for line := range strings.Lines(mdGenerated.ReplaceAllString(p.text, "")) {
			line = strings.TrimSuffix(line, "\n")
			switch {
			case strings.HasPrefix(line, "|"):
				for _, cell := range mdCellEnd.Split(line, -1) {
					if n := utf8.RuneCountInString(strings.TrimSpace(cell)); n > maxCell {
						t.Errorf("%s: a cell has %d characters, the limit is %d: %s",
							p.name, n, maxCell, cell)
					}
				}
			case strings.Contains(line, "://"), strings.HasPrefix(line, "    "):
			case utf8.RuneCountInString(line) > maxProse:
				t.Errorf("%s: a line has more than %d characters: %s", p.name, maxProse, line)
			}
		}
	}
}
