package main

import (
	"cmp"
	"fmt"
	"strings"

	"larder/internal/redaction"
	"larder/internal/web"
)

// serving says what the process serves, for the overview page. name is that of the bucket. Texts of
// documents are left out, because they may contain secrets.
func (c *storeConfig) serving(name string) []web.Fact {
	var rules []string
	for _, r := range c.blocks.relabel {
		var by []string
		for _, l := range r.SourceLabels {
			by = append(by, string(l))
		}
		rules = append(rules, strings.TrimSpace(fmt.Sprintf("%s by %s", r.Action,
			strings.Join(by, ", "))))
	}
	return []web.Fact{
		{Name: "Bucket", Value: redaction.Text(name)},
		{Name: "Prefix", Value: cmp.Or(redaction.Text(c.bucket.parsed.Prefix), "none")},
		{Name: "Rules that select blocks", Value: cmp.Or(strings.Join(rules, "; "), "none")},
		{Name: "Time filter", Value: c.blocks.timeFilter()},
	}
}

// timeFilter says which times are served, in the words of the flags.
func (c *blocksConfig) timeFilter() string {
	const noStart, noEnd = "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z" // the defaults
	from, to := c.minTime.String(), c.maxTime.String()
	switch {
	case from == noStart && to == noEnd:
		return "none"
	case from == noStart:
		return "until " + to
	case to == noEnd:
		return "since " + from
	}
	return from + " to " + to
}
