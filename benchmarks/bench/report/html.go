package report

import (
	_ "embed"
	"html/template"
	"io"
)

//go:embed page.html
var page string

// WriteHTML writes the report as one page without scripts.
func (r *Report) WriteHTML(w io.Writer) error {
	t, err := template.New("report").Funcs(template.FuncMap{
		"digits": digits, "percent": func(v float64) string { return digits(100 * v) },
		"curve": (*Scenario).curve, "bars": (*Scenario).bars, "facts": (*Scenario).facts,
		"at":  func(ss []Scenario, i int) *Scenario { return &ss[i] },
		"row": func(rows []Row, i int) *Row { return &rows[i] },
	}).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, r)
}
