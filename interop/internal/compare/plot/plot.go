// Package plot draws the two kinds of plots of docs/performance.md as SVG: quotients as bars, and
// curves. Both have logarithmic axes, because what they show spans orders of magnitude.
package plot

import (
	"fmt"
	"html"
	"io"
	"math"
	"strconv"
)

// Series is one colour of a plot.
type Series struct {
	Name string
	// Y has one value for each label or place; 0 or less is left out.
	Y []float64
}

// Bars are groups of bars, one for each label, that begin at 1.
type Bars struct {
	Title, YLabel string
	Labels        []string
	Series        []Series
}

// Lines are curves over the same places.
type Lines struct {
	Title, XLabel, YLabel string
	X                     []float64
	Series                []Series
}

// The layout of a plot, in pixels.
const (
	height = 360
	left   = 70
	right  = 20
	top    = 60
	bottom = 70
	// group is the width of the bars of one label, gap the space beside them.
	group = 36
	gap   = 12
	// chart is the width of a plot of curves, without margins, and narrowest the least of a plot of
	// bars.
	chart, narrowest = 560, 560
)

// colour returns one of four colours that people with colour blindness can tell apart.
func colour(i int) string {
	return []string{"#0072b2", "#e69f00", "#009e73", "#cc79a7"}[i%4]
}

// axis maps values to pixels by their logarithm.
type axis struct{ low, high, from, to float64 }

// newAxis spans whole powers of ten around the values, at least one.
func newAxis(values []float64, from, to float64) axis {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if v > 0 {
			low, high = min(low, v), max(high, v)
		}
	}
	if low > high {
		low, high = 1, 1
	}
	a := axis{math.Floor(math.Log10(low)), math.Ceil(math.Log10(high)), from, to}
	if a.low == a.high {
		a.high++
	}
	return a
}

func (a axis) at(v float64) float64 {
	return a.from + (math.Log10(v)-a.low)/(a.high-a.low)*(a.to-a.from)
}

// ticks are the powers of ten.
func (a axis) ticks() []float64 {
	var out []float64
	for e := a.low; e <= a.high; e++ {
		out = append(out, math.Pow(10, e))
	}
	return out
}

// Write draws the bars.
func (b Bars) Write(w io.Writer) error {
	// Few groups stand further apart, so that the title and the legend fit.
	slot := float64(max(group+gap, narrowest/max(len(b.Labels), 1)))
	width := left + right + int(slot)*len(b.Labels)
	d := &drawing{w: w}
	d.begin(width, b.Title)
	values := []float64{1}
	for _, s := range b.Series {
		values = append(values, s.Y...)
	}
	y := newAxis(values, height-bottom, top)
	d.yAxis(y, width, b.YLabel)
	bar := float64(group) / float64(max(len(b.Series), 1))
	for i, label := range b.Labels {
		x := left + float64(i)*slot + (slot-group)/2
		for j, s := range b.Series {
			if i >= len(s.Y) || s.Y[i] <= 0 {
				continue
			}
			from, to := y.at(1), y.at(s.Y[i])
			d.printf(
				`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s">`+
					`<title>%s, %s: %s</title></rect>`,
				x+float64(j)*bar, min(from, to), bar-2, math.Max(math.Abs(from-to), 1), colour(j),
				html.EscapeString(label), html.EscapeString(s.Name), short(s.Y[i]),
			)
		}
		d.text(x+group/2, height-bottom+18, "middle", label)
	}
	d.printf(
		`<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#000" stroke-width="1.5"/>`,
		left, y.at(1), width-right, y.at(1),
	)
	d.legend(b.Series)
	return d.end()
}

// Write draws the curves.
func (l Lines) Write(w io.Writer) error {
	d := &drawing{w: w}
	d.begin(left+chart+right, l.Title)
	var values []float64
	for _, s := range l.Series {
		values = append(values, s.Y...)
	}
	y := newAxis(values, height-bottom, top)
	d.yAxis(y, left+chart+right, l.YLabel)
	x := newAxis(l.X, left, left+chart)
	for _, t := range x.ticks() {
		d.printf(
			`<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#ddd"/>`,
			x.at(t), top, x.at(t), height-bottom,
		)
		d.text(x.at(t), height-bottom+18, "middle", short(t))
	}
	d.text(left+chart/2, height-bottom+40, "middle", l.XLabel)
	for i, s := range l.Series {
		points := ""
		for j, v := range s.Y {
			if j >= len(l.X) || v <= 0 {
				continue
			}
			points += fmt.Sprintf("%.1f,%.1f ", x.at(l.X[j]), y.at(v))
			d.printf(
				`<circle cx="%.1f" cy="%.1f" r="4" fill="%s"><title>%s at %s: %s</title></circle>`,
				x.at(l.X[j]), y.at(v), colour(i),
				html.EscapeString(s.Name), short(l.X[j]), short(v),
			)
		}
		d.printf(
			`<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`, points, colour(i),
		)
	}
	d.legend(l.Series)
	return d.end()
}

// drawing writes SVG and keeps the first error.
type drawing struct {
	w   io.Writer
	err error
}

func (d *drawing) printf(format string, args ...any) {
	if d.err == nil {
		_, d.err = fmt.Fprintf(d.w, format+"\n", args...)
	}
}

func (d *drawing) begin(width int, title string) {
	d.printf(
		`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" `+
			`font-family="sans-serif" font-size="12">`, width, height, width, height,
	)
	d.printf(`<rect width="100%%" height="100%%" fill="#fff"/>`)
	d.printf(
		`<text x="%d" y="20" font-size="14" font-weight="bold">%s</text>`,
		left, html.EscapeString(title),
	)
}

func (d *drawing) yAxis(y axis, width int, label string) {
	for _, t := range y.ticks() {
		d.printf(
			`<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/>`,
			left, y.at(t), width-right, y.at(t),
		)
		d.text(left-8, y.at(t)+4, "end", short(t))
	}
	middle := (height - bottom + top) / 2
	d.printf(
		`<text x="16" y="%d" text-anchor="middle" transform="rotate(-90 16 %d)">%s</text>`,
		middle, middle, html.EscapeString(label),
	)
}

func (d *drawing) text(x, y float64, anchor, s string) {
	d.printf(
		`<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, x, y, anchor, html.EscapeString(s),
	)
}

func (d *drawing) legend(series []Series) {
	x := float64(left)
	for i, s := range series {
		d.printf(`<rect x="%.1f" y="32" width="12" height="12" fill="%s"/>`, x, colour(i))
		d.text(x+18, 42, "start", s.Name)
		x += 40 + 7*float64(len(s.Name))
	}
}

func (d *drawing) end() error {
	d.printf(`</svg>`)
	return d.err
}

// short writes a number with at most three digits.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 3, 64) + " M"
	case v >= 1e3:
		return strconv.FormatFloat(v/1e3, 'g', 3, 64) + " k"
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}
