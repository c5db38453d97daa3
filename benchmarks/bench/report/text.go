package report

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// WriteText writes the report as tables for a terminal.
func (r *Report) WriteText(w io.Writer) error {
	p := &printer{w: w}
	p.printf("larder %s, %s, %d CPUs, seed %d\n%s\n", r.Larder, r.Target, r.CPUs, r.Seed, r.Bucket)
	for i := range r.Scenarios {
		r.Scenarios[i].write(p, r.Quantile)
	}
	if r.Tuning != nil {
		r.Tuning.write(p)
	}
	if len(r.Notes) > 0 {
		p.printf("\n")
	}
	for _, n := range r.Notes {
		p.printf("Note: %s\n", n)
	}
	if r.Tuning != nil {
		return p.err
	}
	over := r.Overruns()
	if len(over) == 0 {
		p.printf("\n%s\n", r.kept())
		return p.err
	}
	p.printf("\nNot kept:\n")
	for _, o := range over {
		p.printf("  %s\n", o)
	}
	return p.err
}

// kept says what it means that nothing is overrun.
func (r *Report) kept() string {
	if !r.Budgeted() {
		return "There are no budgets for this bucket, and no request failed."
	}
	return "All budgets are kept."
}

// write writes one scenario.
func (s *Scenario) write(p *printer, quantile float64) {
	p.printf("\n%s: %s. %s", s.Name, s.About, s.Load)
	if s.Skipped != "" {
		p.printf("\n  skipped: %s\n", s.Skipped)
		return
	}
	p.printf(", %d requests in %.3g s", s.Requests, s.Seconds)
	if s.Errors > 0 {
		p.printf(", %d failed: %s", s.Errors, s.Error)
	}
	p.printf("\n")
	tw := tabwriter.NewWriter(p, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "  ms\tp50\tp90\tp99\tmax\tat %.4g %%\tbudget\t\t  measured by\n", 100*quantile)
	for i := range s.Rows {
		row := &s.Rows[i]
		verdict, budget := "", "-"
		if row.Budget > 0 {
			budget, verdict = digits(row.Budget), "ok"
		}
		if row.Over() {
			verdict = "OVER"
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t  %s\n", row.Name, digits(row.P50),
			digits(row.P90), digits(row.P99), digits(row.Max), digits(row.At), budget, verdict,
			row.Source)
	}
	if err := tw.Flush(); err != nil && p.err == nil {
		p.err = err
	}
	for _, f := range s.facts() {
		p.printf("  %s: %s\n", f.What, f.Text)
	}
}

// fact is a line about what a request costs.
type fact struct{ What, Text string }

// facts are what a request costs, in words.
func (s *Scenario) facts() []fact {
	var out []fact
	add := func(what string, parts ...string) {
		var known []string
		for _, p := range parts {
			if p != "" {
				known = append(known, p)
			}
		}
		if len(known) > 0 {
			out = append(out, fact{what, strings.Join(known, ", ")})
		}
	}
	add("answer", figure(s.Series, "%s series"), size(&s.AnswerBytes, "%s"))
	add("bucket", figure(s.Reads, "%s reads"), figure(s.Others, "%s other requests"),
		size(s.ReadBytes, "%s"), figure(s.Trips, "%s dependent trips"))
	add("prefetch since the start, apart", figure(s.PrefetchReads, "%s reads"),
		size(s.PrefetchBytes, "%s"))
	for _, h := range s.Hits {
		add(h.Cache+" from "+h.Tier, fmt.Sprintf("%s (%.3g %%)", digits(h.Mean), 100*h.Share))
	}
	var cpu *float64
	if s.CPUSeconds != nil {
		v := *s.CPUSeconds * 1e3
		cpu = &v
	}
	add("process", figure(cpu, "%s ms CPU"), figure(s.Allocs, "%s allocations"),
		size(s.AllocBytes, "of %s"), size(s.PeakBytes, "peak memory %s"))
	add("1,000 requests", figure(s.USD, "%s US dollars"))
	return out
}

// figure formats a figure that may be unknown.
func figure(v *float64, format string) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf(format, digits(*v))
}

// size formats bytes that may be unknown.
func size(v *float64, format string) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf(format, volume(*v))
}

func volume(v float64) string {
	switch {
	case v >= 1e9:
		return digits(v/1e9) + " GB"
	case v >= 1e6:
		return digits(v/1e6) + " MB"
	case v >= 1e3:
		return digits(v/1e3) + " kB"
	}
	return digits(v) + " B"
}

func ms(v float64) string { return digits(v) + " ms" }

// digits formats a number with three digits.
func digits(v float64) string {
	switch {
	case v >= 1000:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v > 0 && v < 0.001: // without an exponent, which is hard to compare
		return strconv.FormatFloat(v, 'f', 2-int(math.Floor(math.Log10(v))), 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// printer keeps the first error of its writer.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) Write(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.w.Write(b)
	p.err = err
	return n, err
}

func (p *printer) printf(format string, args ...any) { fmt.Fprintf(p, format, args...) }
