package curves

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"larder/benchmarks/bench/report"
)

//go:embed page.html
var page string

// WriteJSON writes the curves as JSON.
func (c *Curves) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(c)
}

// WriteText writes the curves as tables.
func (c *Curves) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", c.About())
	for _, curve := range c.Curves {
		fmt.Fprintf(&b, "\n%s\n", curve.Title())
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(t, "%s size\tMiB\t%% in memory\t%% on disk\t%% missed\t\n", curve.Tier)
		for _, p := range curve.Points {
			fmt.Fprintf(t, "x %g\t%s\t%.1f\t%.1f\t%.1f\t\n", p.Scale, mib(p.Bytes), 100*p.Memory,
				100*p.Disk, 100*p.Miss())
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, note := range c.Notes {
		fmt.Fprintf(&b, "\nNote: %s.\n", note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// About describes the trace.
func (c *Curves) About() string {
	return fmt.Sprintf("%d page accesses in %.0f s", c.Accesses, c.Seconds)
}

// Title is the heading of a curve.
func (c *Curve) Title() string {
	return fmt.Sprintf("%s pages, by size of the %s", strings.TrimSuffix(c.Cache, "s"), c.Tier)
}

func mib(n int64) string { return fmt.Sprintf("%.4g", float64(n)/(1<<20)) }

// WriteHTML writes the curves as one page without scripts.
func (c *Curves) WriteHTML(w io.Writer) error {
	t, err := template.New("curves").Funcs(template.FuncMap{
		"style": report.Style, "mib": mib,
		"percent": func(v float64) string { return fmt.Sprintf("%.1f", 100*v) },
	}).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, c)
}

// The size of a plot, and of its margins.
const (
	plotWidth, plotHeight  = 420.0, 240.0
	left, right, top, foot = 44.0, 12.0, 12.0, 34.0
)

// Plot is a curve as coordinates of an SVG.
type Plot struct {
	Width, Height float64
	Left, Right   float64
	// Memory and All are the points of the lines: found in memory, found in any tier.
	Memory, All string
	Disk        bool // whether All differs from Memory
	Ticks       []Tick
	Grid        []Tick
	Points      []Tick
}

// Tick is a position with a text.
type Tick struct {
	X, Y float64
	Text string
}

// Plot returns the curve as coordinates. The axis of sizes is logarithmic.
func (c *Curve) Plot() Plot {
	p := Plot{Width: plotWidth, Height: plotHeight, Left: left, Right: plotWidth - right}
	y := func(share float64) float64 { return top + (1-share)*(plotHeight-top-foot) }
	for share := 0.0; share <= 1; share += 0.25 {
		p.Grid = append(p.Grid, Tick{Y: y(share), Text: fmt.Sprintf("%.0f %%", 100*share)})
	}
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range c.Points {
		lo, hi = min(lo, math.Log(v.Scale)), max(hi, math.Log(v.Scale))
	}
	var memory, all strings.Builder
	for _, v := range c.Points {
		x := left + (plotWidth-left-right)/2
		if hi > lo {
			x = left + (math.Log(v.Scale)-lo)/(hi-lo)*(plotWidth-left-right-30) + 15
		}
		fmt.Fprintf(&memory, "%.1f,%.1f ", x, y(v.Memory))
		fmt.Fprintf(&all, "%.1f,%.1f ", x, y(v.Memory+v.Disk))
		p.Disk = p.Disk || v.Disk > 0
		p.Ticks = append(p.Ticks, Tick{X: x, Y: plotHeight - 18, Text: mib(v.Bytes)})
		p.Points = append(p.Points, Tick{X: x, Y: y(v.Memory)})
		if v.Disk > 0 {
			p.Points = append(p.Points, Tick{X: x, Y: y(v.Memory + v.Disk)})
		}
	}
	p.Memory, p.All = memory.String(), all.String()
	return p
}
