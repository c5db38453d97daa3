package matcher

import (
	"testing"

	"larder/store/storepb"
)

// BenchmarkCompile measures what parsing the expressions of dashboards costs.
func BenchmarkCompile(b *testing.B) {
	for name, expr := range map[string]string{
		"list":  values(10_000, "pod-%d"),
		"group": "(" + values(10_000, "pod-%d") + ")", "escaped": values(10_000, `10\.0\.%d\.1`),
		"contains": ".*foo.*", "status": "5..|4..",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			ms := []*storepb.LabelMatcher{{Type: storepb.LabelMatcher_RE, Name: "pod", Value: expr}}
			for b.Loop() {
				if _, err := Parse(nil, largeBudget(), ms); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
