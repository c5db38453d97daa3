package catalog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

func TestSelector(t *testing.T) {
	f := func(rules string, want bool) {
		t.Helper()
		cfg, err := ParseRelabelConfig([]byte(rules))
		if err != nil {
			t.Fatal(err)
		}
		s := newSelector(cfg)
		b := &Block{ID: fullID, Labels: labels.FromStrings("cluster", "eu", "replica", "b")}
		if got := s.keeps(b); got != want {
			t.Errorf("got %t, want %t with rules:\n%s", got, want, rules)
		}
	}
	f(``, true)
	f(`[]`, true)
	f(`[{action: keep, source_labels: [cluster], regex: "eu|us"}]`, true)
	f(`[{action: keep, source_labels: [cluster], regex: "us"}]`, false)
	f(`[{action: keep, source_labels: [cluster], regex: "e"}]`, false) // anchored
	f(`[{action: drop, source_labels: [cluster, replica], regex: "eu;b"}]`, false)
	f(`[{action: drop, source_labels: [replica], regex: "a"}]`, true)
	f(`[{action: keep, source_labels: [__block_id], regex: "01ARZ3NDEKTSV4RRFFQ69G5FAV"}]`, true)
	f(`[{action: drop, source_labels: [__block_id], regex: ".*FAV"}]`, false)
	f(`[{action: Keep, source_labels: [cluster], regex: eu}]`, true)
	kept := 0
	for shard := range 3 {
		cfg, err := ParseRelabelConfig(fmt.Appendf(nil, `
- action: hashmod
  source_labels: [__block_id]
  target_label: shard
  modulus: 3
- action: keep
  source_labels: [shard]
  regex: %d`, shard))
		if err != nil {
			t.Fatal(err)
		}
		s := newSelector(cfg)
		for i := range uint64(300) {
			if s.keeps(&Block{ID: testID(i)}) {
				kept++
			}
		}
	}
	if kept != 300 {
		t.Errorf("three shards keep %d of 300 blocks, want each once", kept)
	}
}

func TestParseRelabelConfigRefuses(t *testing.T) {
	f := func(rules, want string) {
		t.Helper()
		if _, err := ParseRelabelConfig([]byte(rules)); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want one with %q", rules, err, want)
		}
	}
	f(`[{action: labeldrop, regex: a}]`, `"labeldrop" is not supported`)
	f(`[{action: replace, source_labels: [a], target_label: b}]`, `"replace" is not supported`)
	f(`[{source_labels: [a], target_label: b}]`, `"replace" is not supported`) // the default action
	f(`[{action: frobnicate}]`, `frobnicate`)
	f(`[{action: hashmod, source_labels: [a], target_label: b}]`, `modulus`)
	f(`[{action: keep, source_label: [a], regex: b}]`, `source_label`)
	f(`[{action: keep, regex: "("}]`, `missing closing`)
	// Errors name the line and number of the rule, and repeat it.
	f(
		"- action: keep\n  source_labels: [a]\n- action: drop\n  source_labels: [b]\n  regex: x(y\n",
		"line 5: rule 2 {action: drop, source_labels: [b], regex: x(y}: regex: error parsing regexp: missing closing ): `^(?s:x(y)$`",
	)
	f(
		"- action: keep\n  source_labels: [a]\n- action: kepe\n",
		"line 3: rule 2 {action: kepe}: action: unknown relabel action \"kepe\"",
	)
	f(
		"- source_labels: [a]\n  sorce: b\n",
		"line 2: rule 1 {source_labels: [a], sorce: b}: unknown key sorce, known keys are source_labels, separator, regex",
	)
	f(
		"- action: labeldrop\n  regex: a\n",
		"rule 1 {action: labeldrop, regex: a}: action \"labeldrop\" is not supported",
	)
	f(
		"- {action: hashmod, source_labels: [a], target_label: b}\n",
		"rule 1 {action: hashmod, source_labels: [a], target_label: b}: relabel configuration",
	)
	f(`{action: keep}`, `line 1: got a mapping, want a list`)
	f(`[null]`, `rule 1 is empty`)
	f("[]\n---\n[]", `more than one`)
}
