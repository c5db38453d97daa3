package allowed

import (
	"fmt"
	"strings"
)

// Document is the list as docs/compatibility.md shows it: a Markdown table, one row per entry.
func (l *List) Document() string {
	var b strings.Builder
	b.WriteString("| difference | field | why |\n|---|---|---|\n")
	for _, e := range l.Entries {
		fmt.Fprintf(&b, "| %s | `%s` | %s |\n", cell(e.Name), e.Field, cell(e.Reason))
	}
	return b.String()
}

// cell is text in one line, without what would end a table's cell.
func cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", `\|`)
}
