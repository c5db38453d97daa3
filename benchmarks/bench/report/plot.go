package report

import (
	"fmt"
	"html/template"
	"math"
	"strings"
)

// The layout of a plot. It is as wide as a phone shows it, so that its text keeps its size there.
const (
	plotWidth  = 340
	plotHeight = 200
	plotLeft   = 66 // the label 0.001 ms fits
	plotRight  = 14
	plotTop    = 14
	plotBottom = 40
)

// svg begins a plot.
func svg(b *strings.Builder, height int, title string) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img">`+
		`<title>%s</title>`, plotWidth, height, template.HTMLEscapeString(title))
}

func line(b *strings.Builder, x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`,
		x1, y1, x2, y2, class)
}

// text writes a text; anchor is start, middle or end.
func text(b *strings.Builder, x, y float64, anchor, class, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>`,
		x, y, anchor, class, template.HTMLEscapeString(s))
}

// curve draws the distribution of the total time as SVG: the share of slower requests from right
// to left, and the time, both on logarithmic axes, so that the tail is as visible as the median.
func (s *Scenario) curve() template.HTML {
	if len(s.Curve) == 0 {
		return ""
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, p := range s.Curve {
		low, high = min(low, p.MS), max(high, p.MS)
	}
	budget := 0.0
	if r := s.row(totalRow); r != nil && r.Budget > 0 {
		budget = r.Budget
		low, high = min(low, budget), max(high, budget)
	}
	from := math.Floor(math.Log10(max(low, 1e-3)))
	to := max(math.Ceil(math.Log10(max(high, 1e-3))), from+1)
	y := func(v float64) float64 {
		part := (math.Log10(max(v, 1e-3)) - from) / (to - from)
		return plotHeight - plotBottom - part*(plotHeight-plotBottom-plotTop)
	}
	const nines = 3 // up to 99.9 %
	x := func(share float64) float64 {
		part := min(-math.Log10(max(1-share, 1e-9)), nines) / nines
		return plotLeft + part*(plotWidth-plotLeft-plotRight)
	}
	var b strings.Builder
	svg(&b, plotHeight, "Distribution of the total time")
	for e := from; e <= to; e++ {
		v := math.Pow(10, e)
		line(&b, plotLeft, y(v), plotWidth-plotRight, y(v), "grid")
		text(&b, plotLeft-6, y(v)+4, "end", "", tick(v))
	}
	for _, share := range []float64{0, 0.5, 0.9, 0.99, 0.999} {
		line(&b, x(share), plotTop, x(share), plotHeight-plotBottom, "grid")
		text(&b, x(share), plotHeight-plotBottom+15, "middle", "", fmt.Sprintf("%g", 100*share))
	}
	text(&b, (plotLeft+plotWidth)/2, plotHeight-6, "middle", "", "% of the requests within")
	if budget > 0 {
		line(&b, plotLeft, y(budget), plotWidth-plotRight, y(budget), "budget")
	}
	b.WriteString(`<polyline class="curve" points="`)
	for _, p := range s.Curve {
		fmt.Fprintf(&b, "%.1f,%.1f ", x(p.Share), y(p.MS))
	}
	b.WriteString(`"/></svg>`)
	return template.HTML(b.String()) // numbers, and escaped texts
}

// totalRow is the row that the curve shows.
const totalRow = "total"

// tick is a power of ten, in milliseconds.
func tick(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%g s", v/1000)
	}
	return fmt.Sprintf("%g ms", v)
}

// bars draws the median and the 99th percentile of each row beside its budget.
func (s *Scenario) bars() template.HTML {
	const row, label, space = 24, 80, 54
	const width = plotWidth - label - space
	most := 0.0
	for _, r := range s.Rows {
		most = max(most, r.P99, r.Budget)
	}
	if most == 0 {
		return ""
	}
	var b strings.Builder
	svg(&b, row*len(s.Rows)+8, "Median and 99th percentile by stage")
	for i := range s.Rows {
		r := &s.Rows[i]
		top, class := float64(4+i*row), "bar"
		if r.Over() {
			class = "bad"
		}
		end := label + width*r.P99/most
		text(&b, label-8, top+14, "end", "name", r.Name)
		fmt.Fprintf(&b, `<rect x="%d" y="%.1f" width="%.1f" height="16" class="%s tail"/>`+
			`<rect x="%d" y="%.1f" width="%.1f" height="16" class="%s"/>`,
			label, top+1, width*r.P99/most, class, label, top+1, width*r.P50/most, class)
		at := end
		if r.Budget > 0 {
			x := label + width*r.Budget/most
			line(&b, x, top-1, x, top+19, "budget")
			if at+46 > x { // the number would lie on the line
				at = max(at, x)
			}
		}
		text(&b, at+6, top+14, "start", "", digits(r.P99))
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) // numbers, and escaped texts
}
