package lint

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// markdown is a Markdown file of the repository.
type markdown struct {
	name  string // from the repository's root, with slashes
	lines []string
}

// markdownFiles returns the Markdown files of the repository. It skips hidden folders and npm's.
func markdownFiles(t *testing.T) []markdown {
	t.Helper()
	root := filepath.Join("..", "..")
	var found []markdown
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() && p != root && (base == "node_modules" || strings.HasPrefix(base, ".")) {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(p) != ".md" {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		found = append(found, markdown{filepath.ToSlash(rel), strings.Split(string(text), "\n")})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 10 {
		t.Fatalf("found only %d Markdown files: the rules do not work", len(found))
	}
	return found
}

// prose calls f with the lines of a page that are prose: outside of code blocks and tables.
func (m *markdown) prose(f func(number int, line string)) {
	code := false
	for i, line := range m.lines {
		text := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(text, "```"):
			code = !code
		case code || strings.HasPrefix(text, "|") || strings.HasPrefix(line, "    "):
		default:
			f(i+1, line)
		}
	}
}

// TestMarkdownLinesAreShort: a line of prose has at most 100 columns. Tables, code blocks, and
// lines made long by a URL or a link are excepted.
func TestMarkdownLinesAreShort(t *testing.T) {
	link := regexp.MustCompile(`\]\([^)]*\)`)
	for _, page := range markdownFiles(t) {
		page.prose(func(number int, line string) {
			n := columns(line)
			if n > maxColumns && !address.MatchString(line) &&
				columns(link.ReplaceAllString(line, "]")) > maxColumns {
				t.Errorf("%s:%d: %d columns, more than %d: wrap the line", page.name, number, n,
					maxColumns)
			}
		})
	}
}

// TestMarkdownNamesTheActor: Markdown follows the same rule as Go.
func TestMarkdownNamesTheActor(t *testing.T) {
	for _, page := range markdownFiles(t) {
		checkWords(t, page.name, page.lines)
	}
}
