package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// print writes a table of the results.
func (c config) print(out io.Writer, results []result) error {
	limit := "GOMEMLIMIT alone, because no cgroup could be made"
	if slices.ContainsFunc(results, func(r result) bool { return r.cgroup }) {
		limit = "GOMEMLIMIT and a memory cgroup"
	}
	fmt.Fprintf(out, "limit %d MiB by %s\n\n", c.limit>>20, limit)
	rows := [][]string{{"no.", "attack", "what it did", "peak MiB", "cgroup MiB", "lives",
		"honest", "failed", "p50", "p99", "took", "verdict"}}
	for _, r := range results {
		rows = append(rows, r.cells())
	}
	if c.markdown {
		for i, row := range rows {
			fmt.Fprintln(out, "| "+strings.Join(row, " | ")+" |")
			if i == 0 {
				fmt.Fprintln(out, strings.Repeat("|---", len(row))+"|")
			}
		}
		fmt.Fprintln(out)
		return nil
	}
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}

func (r *result) cells() []string {
	verdict := r.verdict()
	if len(r.findings) > 0 {
		first, _, _ := strings.Cut(r.findings[0], "\n")
		verdict += ": " + first[:min(len(first), 160)]
	}
	took := r.took.Round(time.Second).String()
	number := "–"
	if r.number != "" {
		number = r.number
	}
	if r.alone {
		no := "–"
		return []string{number, r.name, r.did, no, no, no, no, no, no, no, took, verdict}
	}
	lives := "yes"
	if !r.lives {
		lives = "NO"
	}
	ms := func(q float64) string {
		return r.honest.quantile(q).Round(100 * time.Microsecond).String()
	}
	return []string{number, r.name, r.did, fmt.Sprint(r.peak >> 20), fmt.Sprint(r.cgroupPeak >> 20),
		lives,
		fmt.Sprint(r.honest.asked()), fmt.Sprint(len(r.honest.failed)), ms(0.5), ms(
			0.99), took, verdict}
}
