package report

import (
	_ "embed"
	"html/template"
	"io"
	"slices"
)

//go:embed page.html
var page string

//go:embed style.css
var style string

// Style is the style sheet of the pages of `larder bench`.
func Style() template.CSS { return template.CSS(style) }

// WriteHTML writes the report as one page without scripts.
func (r *Report) WriteHTML(w io.Writer) error {
	t, err := template.New("report").Funcs(template.FuncMap{
		"style": Style, "digits": digits,
		"percent": func(v float64) string { return digits(100 * v) },
		"kilo":    func(v float64) string { return digits(v / 1000) }, "duration": duration,
		"quotient": Ratio.short, "known": known,
		"curve": (*Scenario).curve, "bars": (*Scenario).bars, "facts": (*Scenario).facts,
		"knobPlot": Knob.plot, "finalPlot": (*Tuning).finalPlot,
		"kept":  (*Report).kept,
		"total": func(s *Scenario) *Row { return s.row(totalRow) },
		"first": func(s *Scenario) *Row { return s.row("first_frame") },
		"at":    func(ss []Scenario, i int) *Scenario { return &ss[i] },
		"row":   func(rows []Row, i int) *Row { return &rows[i] },
	}).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, r)
}

// row returns the row of a name, nil if there is none.
func (s *Scenario) row(name string) *Row {
	i := slices.IndexFunc(s.Rows, func(r Row) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	return &s.Rows[i]
}

// known formats a figure times scale, and one that is not known as a dash.
func known(v *float64, scale float64) string {
	if v == nil {
		return "-"
	}
	return digits(scale * *v)
}

// Budgeted reports whether some row has a budget.
func (r *Report) Budgeted() bool {
	return slices.ContainsFunc(r.Scenarios, func(s Scenario) bool {
		return slices.ContainsFunc(s.Rows, func(r Row) bool { return r.Budget > 0 })
	})
}
