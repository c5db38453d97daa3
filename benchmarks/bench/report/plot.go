package report

import (
	"fmt"
	"html/template"
	"math"
	"strings"
)

// The layout of a plot, in pixels.
const (
	plotWidth  = 460
	plotHeight = 240
	plotLeft   = 56
	plotRight  = 12
	plotTop    = 12
	plotBottom = 36
)

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
	var budget float64
	for _, r := range s.Rows {
		if r.Name == totalRow && r.Budget > 0 {
			budget = r.Budget
			low, high = min(low, budget), max(high, budget)
		}
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
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" role="img">`+
		`<title>Distribution of the total time</title>`, plotWidth, plotHeight)
	for e := from; e <= to; e++ {
		v := math.Pow(10, e)
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" class="grid"/>`+
			`<text x="%d" y="%.1f" text-anchor="end">%s</text>`,
			plotLeft, plotWidth-plotRight, y(v), y(v), plotLeft-4, y(v)+4, tick(v))
	}
	for _, share := range []float64{0, 0.5, 0.9, 0.99, 0.999} {
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" class="grid"/>`+
			`<text x="%.1f" y="%d" text-anchor="middle">%g</text>`,
			x(share), x(share), plotTop, plotHeight-plotBottom, x(share),
			plotHeight-plotBottom+14, 100*share)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%% of the requests within</text>`,
		(plotLeft+plotWidth)/2, plotHeight-4)
	if budget > 0 {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" class="budget"/>`,
			plotLeft, plotWidth-plotRight, y(budget), y(budget))
	}
	b.WriteString(`<polyline class="curve" points="`)
	for _, p := range s.Curve {
		fmt.Fprintf(&b, "%.1f,%.1f ", x(p.Share), y(p.MS))
	}
	b.WriteString(`"/></svg>`)
	return template.HTML(b.String()) // numbers only
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
	const row, label, width = 22, 76, plotWidth - 76 - 70
	most := 0.0
	for _, r := range s.Rows {
		most = max(most, r.P99, r.Budget)
	}
	if most == 0 {
		return ""
	}
	var b strings.Builder
	height := row*len(s.Rows) + 8
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" role="img">`+
		`<title>Median and 99th percentile by stage</title>`, plotWidth, height)
	for i := range s.Rows {
		r := &s.Rows[i]
		at, class := 4+i*row, "bar"
		if r.Over() {
			class = "bar over"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+
			`<rect x="%d" y="%d" width="%.1f" height="14" class="%s tail"/>`+
			`<rect x="%d" y="%d" width="%.1f" height="14" class="%s"/>`+
			`<text x="%.1f" y="%d">%s</text>`,
			label-6, at+12, template.HTMLEscapeString(r.Name),
			label, at, width*r.P99/most, class, label, at, width*r.P50/most, class,
			label+width*r.P99/most+4, at+12, digits(r.P99))
		if r.Budget > 0 {
			fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" class="budget"/>`,
				label+width*r.Budget/most, label+width*r.Budget/most, at-2, at+16)
		}
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) // numbers, and escaped names
}
