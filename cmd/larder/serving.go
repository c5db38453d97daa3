package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/model/relabel"

	"larder/internal/redaction"
	"larder/internal/web"
)

// serving says what the process serves now, for the overview page.
func (b *backend) serving() []web.Fact {
	return b.conf.serving(b.bound.Name(), b.catalog.Rules())
}

// serving says what is served from the bucket with this name, by these rules. It hides what has the
// shape of a secret.
func (c *storeConfig) serving(name string, rules []*relabel.Config) []web.Fact {
	selects := web.Fact{Name: "Rules that select blocks", Lines: ruleTexts(rules)}
	if len(selects.Lines) == 0 {
		selects.Value = "none"
	}
	return []web.Fact{
		{Name: "Bucket", Value: redaction.Text(name)},
		{Name: "Prefix", Value: cmp.Or(redaction.Text(c.bucket.parsed.Prefix), "none")},
		selects,
		{Name: "Time filter", Value: c.blocks.timeFilter()},
	}
}

const (
	// maxRules bounds the rules that the page shows, maxRuleText the bytes of each.
	maxRules    = 20
	maxRuleText = 300
)

// ruleTexts returns a line for each rule.
func ruleTexts(rules []*relabel.Config) (lines []string) {
	for i, r := range rules {
		if i == maxRules {
			return append(lines, fmt.Sprintf("and %d more", len(rules)-i))
		}
		line := redaction.Text(ruleText(r))
		if len(line) > maxRuleText {
			line = strings.ToValidUTF8(line[:maxRuleText], "") + "…"
		}
		lines = append(lines, line)
	}
	return lines
}

// ruleText writes a rule like a matcher: keep cluster=~"eu-.*".
func ruleText(r *relabel.Config) string {
	var from []string
	for _, l := range r.SourceLabels {
		from = append(from, string(l))
	}
	of := strings.Join(from, r.Separator)
	if r.Action == relabel.HashMod {
		return fmt.Sprintf("%s = hash of %s modulo %d", r.TargetLabel, of, r.Modulus)
	}
	return fmt.Sprintf("%s %s=~%q", r.Action, of, r.Regex.String())
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
