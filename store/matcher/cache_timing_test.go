package matcher

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
)

// BenchmarkCache measures what the cache saves: a Grafana variable of 1,000 values.
func BenchmarkCache(b *testing.B) {
	values := make([]string, 1000)
	for i := range values {
		values[i] = fmt.Sprintf("pod-%d-%x", i, i*7919)
	}
	pattern := strings.Join(values, "|")
	for name, c := range map[string]*Cache{
		"none": nil, "kept": NewCache(10, prometheus.NewRegistry()),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := largeBudget().matcher(c, labels.MatchRegexp, "pod",
					pattern); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
