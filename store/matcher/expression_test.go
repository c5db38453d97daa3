package matcher

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"larder/store/storepb"
)

// values returns a list of n values, as a Grafana variable expands to.
func values(n int, format string) string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf(format, i*7919%1000003)
	}
	return strings.Join(out, "|")
}

// allocated returns how many bytes f allocates, and how many of them are alive afterwards.
func allocated(f func() any) (all, kept int64) {
	var before, after, end runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	v := f()
	runtime.ReadMemStats(&after)
	runtime.GC()
	runtime.ReadMemStats(&end)
	runtime.KeepAlive(v)
	return int64(after.TotalAlloc - before.TotalAlloc),
		int64(end.HeapAlloc) - int64(before.HeapAlloc)
}

// TestExpressionsAreBounded: neither a few bytes on the wire nor a very long expression may exhaust
// the memory.
func TestExpressionsAreBounded(t *testing.T) {
	for _, tc := range []struct {
		name, expr, want string
	}{
		{"categories", strings.Repeat(`\pL`, 15_000), `more than 1000 and 32`},
		{"some categories", strings.Repeat(`\pL`, 90), "classes of characters"},
		{"categories, any case", "(?i)" + strings.Repeat(`[\P{Lu}]`, 500), "classes of characters"},
		{"wide ranges", "(?i)" + strings.Repeat(`[\x{42}-\x{1e943}]`, 1000),
			"more than 1000 and 32"},
		{"wide ranges in one class", "(?i)[[:alpha:]" + strings.Repeat(`B-𞥃`, 1000) + "]",
			"more than 1000 and 32"},
		{"groups", strings.Repeat("[ab]", 8) + strings.Repeat("(c)", 10_000), "stands for"},
		{"repetitions", strings.Repeat("(a{1000})", 51), "repetitions such as x{9}"},
		{"repeated categories", `\pL{1000}`, "repetitions such as x{9}"},
		{"empty alternatives", "(" + strings.Repeat("|", 2_000_000) + "a)(b)",
			"regular expressions come to"},
		{"any characters", strings.Repeat("a.", 600_000), "regular expressions come to"},
		{"empty alternatives that may be parsed",
			strings.Repeat("()|", 60_000) + strings.Repeat("[ab]", 8) + strings.Repeat("(c)",
				10_000), "stands for"},
		{"no expression", "(" + strings.Repeat("ä", 400_000), "missing closing )"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var err error
			all, _ := allocated(func() any {
				var ms []*labels.Matcher
				ms, err = Parse(nil, largeBudget(), []*storepb.LabelMatcher{
					{Type: storepb.LabelMatcher_RE, Name: "pod", Value: tc.expr},
				})
				return ms
			})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %.300v, want an error about %s", err, tc.want)
			} else if n := len(err.Error()); n > 1000 {
				t.Errorf("an error of %d bytes", n)
			}
			if all > 128<<20 {
				t.Errorf("rejecting an expression of %d bytes allocated %d", len(tc.expr), all)
			}
		})
	}
	// Several are bounded together.
	ms := make([]*storepb.LabelMatcher, 4)
	for i := range ms {
		ms[i] = &storepb.LabelMatcher{
			Type: storepb.LabelMatcher_NRE, Name: "pod", Value: strings.Repeat(`\pL`, 30),
		}
	}
	if _, err := Parse(nil, largeBudget(), ms[:2]); err != nil {
		t.Error(err)
	}
	if _, err := Parse(nil, largeBudget(), ms); err == nil {
		t.Error("120 categories in four expressions are accepted, although 90 in one are not")
	}
}

// TestGroupsAreCounted: matching takes memory for every group in every thread. It is counted before
// the expression is compiled.
func TestGroupsAreCounted(t *testing.T) {
	expr := strings.Repeat("(a?)", 1500)
	cost, err := measure(expr)
	if err != nil {
		t.Fatal(err)
	}
	m, err := labels.NewFastRegexMatcher(expr)
	if err != nil {
		t.Fatal(err)
	}
	all, _ := allocated(func() any { return m.MatchString("b") })
	if all > cost.compiled || all < cost.compiled/8 {
		t.Errorf("matching takes %d bytes, %d are counted", all, cost.compiled)
	}
	ms := []*storepb.LabelMatcher{{
		Type: storepb.LabelMatcher_RE, Name: "pod", Value: strings.Repeat("(a?)", 16_000),
	}}
	_, err = Parse(nil, largeBudget(), ms)
	if err == nil || !strings.Contains(err.Error(), "compile to") {
		t.Errorf("16,000 groups in a row: got %.300v, want what they compile to", err)
	}
}

// TestExpressionsThatDashboardsSend: they are accepted, and hold no more than their cost says.
func TestExpressionsThatDashboardsSend(t *testing.T) {
	for _, tc := range []struct {
		name, expr, yes, no string
		most                int64 // bytes allocated
	}{
		{"list", values(50_000, "pod-%d"), "pod-7919", "pod-", 8 << 20},
		{"list in a group", "(" + values(50_000, "pod-%d") + ")", "pod-7919", "pod-", 8 << 20},
		{"list in a group without a name", "(?:" + values(50_000, "pod-%d") + ")", "pod-7919",
			"pod-", 8 << 20},
		{"list with nothing", "(|a|b)", "", "c", 1 << 20},
		{"escaped list", "(" + values(10_000, `10\.0\.%d\.1:9100`) + ")", "10.0.7919.1:9100",
			"10.0x7919.1:9100", 256 << 20},
		{"prefixes", values(5_000, "pod-%d-.*"), "pod-7919-", "pod-7919", 64 << 20},
		{"any case", "(?i)" + values(5_000, "Pod-%d"), "pOD-7919", "pod-", 64 << 20},
		{"parts", ".*foo.*", "xfoo", "xfo", 1 << 20},
		{"classes", strings.TrimSuffix(strings.Repeat("pod-[0-9a-f]+-[a-z0-9]{5}|", 500), "|"),
			"pod-1f-abcde", "pod-1f-abc", 64 << 20},
		{"letters", `\p{Lu}\pL+-\d\d`, "Éa-12", "éa-12", 4 << 20},
		{"cyrillic", "(?i)[а-я]+-[a-z]+", "ПОД-a", "-a", 4 << 20},
		{"windows", strings.TrimSuffix(strings.Repeat(`C:\\programs\\private|`, 2000), "|"),
			`C:\programs\private`, "C:", 64 << 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := []*storepb.LabelMatcher{
				{Type: storepb.LabelMatcher_RE, Name: "pod", Value: tc.expr},
			}
			var ms []*labels.Matcher
			var err error
			all, kept := allocated(func() any {
				ms, err = Parse(nil, largeBudget(), req)
				return &ms
			})
			if err != nil {
				t.Fatalf("%.300v", err)
			}
			if !ms[0].Matches(tc.yes) || ms[0].Matches(tc.no) {
				t.Errorf("%q matches: %v, want true; %q: %v, want false",
					tc.yes, ms[0].Matches(tc.yes), tc.no, ms[0].Matches(tc.no))
			}
			c, err := measure(ungroup(tc.expr))
			if err != nil {
				t.Fatal(err)
			}
			if all > tc.most {
				t.Errorf("an expression of %d bytes allocated %d, want at most %d",
					len(tc.expr), all, tc.most)
			}
			if kept > c.compiled+64<<10 {
				t.Errorf("the matcher holds %d bytes, its cost says %d", kept, c.compiled)
			}
		})
	}
}

// TestUngroup: removing a group must not change what matches.
func TestUngroup(t *testing.T) {
	for expr, want := range map[string]string{
		"(a|b)": "a|b", "(?:a|b-c)": "a|b-c", "(|a)": "|a",
		"(a)|(b)": "(a)|(b)", "(a|b)?": "(a|b)?", `(a|b\)`: `(a|b\)`, "(?i:a|b)": "(?i:a|b)",
		"()": "()", "a|b)": "a|b)", "(?P<x>a|b)": "(?P<x>a|b)", "(a|(b))": "(a|(b))",
		"(^a|b)": "(^a|b)",
	} {
		if got := ungroup(expr); got != want {
			t.Errorf("%s: got %s, want %s", expr, got, want)
		}
	}
}
