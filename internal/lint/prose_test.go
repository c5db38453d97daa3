package lint

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// maxColumns is the length of a line of Go or of Markdown prose; a tab counts four columns.
const maxColumns = 100

// longLiteral is the length from which a string literal excuses a long line: a line that contains
// such a literal cannot be wrapped well.
const longLiteral = 60

var (
	literal = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"|`[^`]*`")
	// quoted finds strings, runes and comments: a backquote inside one starts no raw string.
	quoted  = regexp.MustCompile("\"(?:[^\"\\\\\n]|\\\\.)*\"|'(?:[^'\\\\\n]|\\\\.)*'|//[^\n]*|`[^`]*`")
	address = regexp.MustCompile(`https?://`)
)

// columns returns the width of a line.
func columns(line string) int {
	return utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    "))
}

// excused reports whether a line of Go may be long: because of a URL, a directive, code in a
// comment, or one string literal that is long or alone on its line.
func excused(line string) bool {
	text := strings.TrimSpace(line)
	if address.MatchString(line) || strings.HasPrefix(text, "//go:") ||
		strings.HasPrefix(text, "//\t") {
		return true
	}
	for _, s := range literal.FindAllString(line, -1) {
		if columns(s) >= longLiteral || strings.TrimRight(text, ",)+ ") == s {
			return true
		}
	}
	return false
}

// rawLines returns the numbers of the lines that begin inside a raw string of the file, from 0.
func rawLines(text string) map[int]bool {
	inside := make(map[int]bool)
	for _, m := range quoted.FindAllStringIndex(text, -1) {
		if text[m[0]] != '`' {
			continue
		}
		first := strings.Count(text[:m[0]], "\n")
		for i := range strings.Count(text[m[0]:m[1]], "\n") + 1 {
			inside[first+i] = true
		}
	}
	return inside
}

// TestGoLinesAreShort: a line of Go has at most 100 columns. Generated files, raw strings, URLs and
// lines made long by one string literal are excepted.
func TestGoLinesAreShort(t *testing.T) {
	for _, f := range tree(t) {
		if f.generated() {
			continue
		}
		raw := rawLines(f.text)
		for i, line := range strings.Split(f.text, "\n") {
			if n := columns(line); n > maxColumns && !raw[i] && !excused(line) {
				t.Errorf("%s:%d: %d columns, more than %d: wrap the line", f.name, i+1, n,
					maxColumns)
			}
		}
	}
}

// Words that hide who acts, and references to documents outside of the repository. Both are split
// into pieces, so that this file passes.
var (
	vague = regexp.MustCompile(
		`(?i)\b(no` + `body|who` + `ever|some` + `body|any` + `body|an` + `ew)\b`)
	outside = regexp.MustCompile(`\b(refe` + `rence [A-Z][0-9]|DES` + `IGN)\b`)
)

// checkWords reports the lines of a file that contain such words.
func checkWords(t *testing.T, name string, lines []string) {
	t.Helper()
	for i, line := range lines {
		if m := vague.FindString(line); m != "" {
			t.Errorf("%s:%d: %q: name the actor or the thing", name, i+1, m)
		}
		if m := outside.FindString(line); m != "" {
			t.Errorf("%s:%d: %q is outside of the repository: say the rule itself", name, i+1, m)
		}
	}
}

// TestProseNamesTheActor: Go comments and strings name the request, the caller or the goroutine
// that acts, and refer only to documents of the repository.
func TestProseNamesTheActor(t *testing.T) {
	for _, f := range tree(t) {
		if !f.generated() {
			checkWords(t, f.name, strings.Split(f.text, "\n"))
		}
	}
}
