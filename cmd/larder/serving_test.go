package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"larder/store/catalog"
)

// TestRulesAreShown checks how the overview shows relabel rules: all expressions, bounded, without
// secrets.
func TestRulesAreShown(t *testing.T) {
	f := func(document string, want ...string) {
		t.Helper()
		rules, err := catalog.ParseRelabelConfig([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		if got := ruleTexts(rules); !slices.Equal(got, want) {
			t.Errorf("%s:\ngot  %q\nwant %q", document, got, want)
		}
	}
	f("")
	f(`[{action: drop, source_labels: [cluster], regex: 'us-.*'}]`, `drop cluster=~"us-.*"`)
	f(`[{action: keep, source_labels: [cluster, replica], regex: 'eu-1;a|"b"'}]`,
		`keep cluster;replica=~"eu-1;a|\"b\""`)
	f(`[{action: hashmod, source_labels: [__block_id], target_label: shard, modulus: 3},
		{action: keep, source_labels: [shard], regex: 1}]`,
		"shard = hash of __block_id modulo 3", `keep shard=~"1"`)
	f(`[{action: drop, source_labels: [url], regex: 'https://user:hunter22@example.org/.*'}]`,
		`drop url=~"https://<REDACTED>@example.org/.*"`)

	long := strings.Repeat("ä", maxRuleText)
	f(fmt.Sprintf("[{action: drop, source_labels: [a], regex: %s}]", long),
		`drop a=~"`+long[:maxRuleText-10]+"…")
	rule, line := "{action: drop, source_labels: [a], regex: b}", `drop a=~"b"`
	lines := slices.Repeat([]string{line}, maxRules)
	f("["+strings.Repeat(rule+",", maxRules-1)+rule+"]", lines...)
	f("["+strings.Repeat(rule+",", maxRules+1)+rule+"]", append(lines, "and 2 more")...)
}
