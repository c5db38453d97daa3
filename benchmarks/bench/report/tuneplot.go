package report

import (
	"html/template"
	"math"
	"strings"
)

// plot draws the last trial of each value: the quotients of dollars and of time with their
// intervals, on a logarithmic axis around 1.
func (k Knob) plot() template.HTML {
	var rows []Trial
	for _, t := range k.Trials {
		for i := range rows {
			if rows[i].Value == t.Value && rows[i].Than == t.Than {
				rows[i] = t
				t.Value = ""
				break
			}
		}
		if t.Value != "" {
			rows = append(rows, t)
		}
	}
	return quotients(rows, "Quotients of the values of "+k.Name)
}

func (t *Tuning) finalPlot() template.HTML {
	return quotients([]Trial{t.Final}, "The result compared with the start")
}

// span is how far the axis reaches at least, and at most, as a logarithm.
const minSpan, maxSpan = 0.05, 1.1

func quotients(rows []Trial, title string) template.HTML {
	if len(rows) == 0 {
		return ""
	}
	const row, label, top = 30, 112, 6
	span := minSpan
	for _, t := range rows {
		for _, r := range []Ratio{t.USD, t.Time} {
			span = max(span, math.Abs(math.Log(r.Mean)))
			if r.Low != nil && r.High != nil {
				span = max(span, -math.Log(*r.Low), math.Log(*r.High))
			}
		}
	}
	span = min(span*1.05, maxSpan)
	left, right := float64(label), float64(plotWidth-plotRight-6)
	x := func(v float64) float64 {
		part := min(max(math.Log(max(v, 1e-9))/span, -1), 1)
		return (left+right)/2 + part*(right-left)/2
	}
	bottom := float64(top + row*len(rows))
	var b strings.Builder
	svg(&b, int(bottom)+24, title)
	for _, part := range []float64{-1, -0.5, 0.5, 1} {
		v := math.Exp(part * span)
		line(&b, x(v), top, x(v), bottom, "grid")
		text(&b, x(v), bottom+16, "middle", "", quotientTick(v))
	}
	line(&b, x(1), top, x(1), bottom, "axis")
	text(&b, x(1), bottom+16, "middle", "name", "1")
	for i, t := range rows {
		y := float64(top + row*i + row/2)
		class := "name"
		if t.Better {
			class = "name chosen"
		}
		text(&b, left-8, y+4, "end", class, t.label())
		mark(&b, x, t.USD, y-5, "usd")
		mark(&b, x, t.Time, y+6, "time")
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) // numbers, and escaped texts
}

// mark draws a quotient: a square, and a line for its interval.
func mark(b *strings.Builder, x func(float64) float64, r Ratio, y float64, class string) {
	if r.Low != nil && r.High != nil {
		line(b, x(*r.Low), y, x(*r.High), y, class)
	}
	at := x(r.Mean)
	line(b, at-3, y, at+3, y, class+" ")
	line(b, at, y-4, at, y+4, class)
}

func quotientTick(v float64) string { return digits(math.Round(v*100) / 100) }

// label names the row of a trial: the value, and what it was compared with if there is room.
func (t *Trial) label() string {
	if s := t.Value + " : " + t.Than; short(s) == s {
		return s
	}
	return short(t.Value)
}

// short shortens the text of a value for the label of a row.
func short(s string) string {
	const most = 13
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}
