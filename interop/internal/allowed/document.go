package allowed

import (
	"fmt"
	"strings"
)

// Document returns the list as docs/compatibility.md shows it: a Markdown table with one row per
// entry.
func (l *List) Document() string {
	var b strings.Builder
	b.WriteString("| difference | field | why |\n|---|---|---|\n")
	for _, e := range l.Entries {
		fmt.Fprintf(&b, "| %s | `%s` | %s |\n", cell(e.Name), e.Field, cell(e.Reason))
	}
	return b.String()
}

// cell returns text in one line, without characters that would end a table cell.
func cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", `\|`)
}
