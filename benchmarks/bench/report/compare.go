package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// Compare writes what differs between two reports, scenario by scenario: the median and the 99th
// percentile of each stage, and what a request costs. A quotient above 1 means that b has more.
//
// A scenario with failed requests gets no quotients, because a request that fails early is not a
// fast one. Compare returns an error that names these scenarios, after it has written everything.
func Compare(w io.Writer, a, b *Report) error {
	p := &printer{w: w}
	p.printf("A: larder %s, %s, %s\nB: larder %s, %s, %s\n", a.Larder, a.Target, a.Bucket,
		b.Larder, b.Target, b.Bucket)
	if a.Bucket != b.Bucket || a.Seed != b.Seed || a.CPUs != b.CPUs {
		p.printf("The buckets, seeds or numbers of CPUs differ: times may not compare.\n")
	}
	p.printf("\n")
	tw := tabwriter.NewWriter(p, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "scenario\tfigure\tA\tB\tB/A\t")
	var failed []string
	for i := range a.Scenarios {
		from := &a.Scenarios[i]
		j := slices.IndexFunc(b.Scenarios, func(s Scenario) bool { return s.Name == from.Name })
		if j < 0 || from.Skipped != "" || b.Scenarios[j].Skipped != "" {
			fmt.Fprintf(tw, "%s\tnot in both\t\t\t\t\n", from.Name)
			continue
		}
		if compare(tw, from, &b.Scenarios[j]) {
			failed = append(failed, from.Name)
		}
	}
	for i := range b.Scenarios {
		name := b.Scenarios[i].Name
		if !slices.ContainsFunc(a.Scenarios, func(s Scenario) bool { return s.Name == name }) {
			fmt.Fprintf(tw, "%s\tnot in both\t\t\t\t\n", name)
		}
	}
	if err := tw.Flush(); err != nil && p.err == nil {
		p.err = err
	}
	if p.err == nil && len(failed) > 0 {
		return fmt.Errorf("requests failed, their times do not compare: %s",
			strings.Join(failed, ", "))
	}
	return p.err
}

// compare writes the lines of a scenario. It reports whether requests failed in one of the runs.
func compare(w io.Writer, a, b *Scenario) (failed bool) {
	name := a.Name
	if failed = a.Errors > 0 || b.Errors > 0; failed {
		fmt.Fprintf(w, "%s\tfailed requests\t%d of %d\t%d of %d\t-\t\n", name, a.Errors,
			a.Requests, b.Errors, b.Requests)
		name = ""
	}
	line := func(figure string, x, y *float64, scale float64) {
		if x == nil || y == nil {
			return
		}
		quotient := "-"
		if q := *y / *x; !failed && !math.IsNaN(q) && !math.IsInf(q, 0) {
			quotient = fmt.Sprintf("%.2f", q)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", name, figure, digits(scale**x), digits(scale**y),
			quotient)
		name = ""
	}
	for i := range a.Rows {
		j := slices.IndexFunc(b.Rows, func(r Row) bool { return r.Name == a.Rows[i].Name })
		if j < 0 {
			continue
		}
		line(a.Rows[i].Name+" p50 ms", &a.Rows[i].P50, &b.Rows[j].P50, 1)
		line(a.Rows[i].Name+" p99 ms", &a.Rows[i].P99, &b.Rows[j].P99, 1)
	}
	line("bucket reads", a.Reads, b.Reads, 1)
	line("bucket kB", a.ReadBytes, b.ReadBytes, 1e-3)
	line("dependent trips", a.Trips, b.Trips, 1)
	line("CPU ms", a.CPUSeconds, b.CPUSeconds, 1e3)
	line("allocations", a.Allocs, b.Allocs, 1)
	line("peak MB", a.PeakBytes, b.PeakBytes, 1e-6)
	line("USD per 1,000", a.USD, b.USD, 1)
	return failed
}
