package main

import (
	"fmt"
	"strings"
)

// selected restricts each expression to what the variables of the dashboard select.
const selected = `job=~"$job",instance=~"$instance"`

// series selects the series of a metric. matchers are separated by commas; "" is none.
func series(metric, matchers string) string {
	if matchers != "" {
		matchers = "," + matchers
	}
	return metric + "{" + selected + matchers + "}"
}

// rate returns the increase of a counter in a second.
func rate(metric, matchers string) string {
	return "rate(" + series(metric, matchers) + "[$__rate_interval])"
}

// sum adds up an expression by some labels, which are separated by commas; "" is none.
func sum(by, expr string) string {
	if by == "" {
		return "sum(" + expr + ")"
	}
	return "sum by (" + by + ") (" + expr + ")"
}

// ratio divides one sum of rates by another.
func ratio(by, part, whole string) string { return sum(by, part) + " / " + sum(by, whole) }

// quantile returns a quantile of a histogram. Prometheus may have stored classic buckets, native
// histograms or both. The second half of the expression has values where the first has none.
func quantile(q float64, by, metric, matchers string) string {
	classic := strings.TrimPrefix(by+",le", ",")
	return fmt.Sprintf("histogram_quantile(%g, %s) or histogram_quantile(%[1]g, %[3]s)", q,
		sum(classic, rate(metric+"_bucket", matchers)), sum(by, rate(metric, matchers)))
}

// mean returns the mean of a histogram.
func mean(by, metric, matchers string) string {
	native := sum(by, rate(metric, matchers))
	return ratio(by, rate(metric+"_sum", matchers), rate(metric+"_count", matchers)) + " or " +
		"histogram_sum(" + native + ") / histogram_count(" + native + ")"
}
