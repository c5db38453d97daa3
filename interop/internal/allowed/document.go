package allowed

import (
	"fmt"
	"strings"
)

// documentColumns is the width that the list is wrapped to.
const documentColumns = 100

// Document returns the list as docs/compatibility.md shows it: a Markdown list with an item for
// each entry.
func (l *List) Document() string {
	var b strings.Builder
	for _, e := range l.Entries {
		text := fmt.Sprintf("**%s** (`%s`). %s", e.Name, e.Field, e.Reason)
		column := len("-")
		b.WriteString("-")
		for _, word := range strings.Fields(text) {
			if column+1+len(word) > documentColumns {
				b.WriteString("\n ")
				column = len(" ")
			}
			b.WriteString(" " + word)
			column += 1 + len(word)
		}
		b.WriteString("\n")
	}
	return b.String()
}
