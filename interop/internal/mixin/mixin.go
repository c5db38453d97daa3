// Package mixin reads the alerts, rules and dashboards that Thanos ships for its store gateway. It
// reads them from Thanos's module at test time; therefore larder is tested against what operators
// have, not against a copy.
package mixin

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
	"gopkg.in/yaml.v3"
)

// Expression is a PromQL expression and its place.
type Expression struct {
	// Where is for readers: file, group or row, alert or panel.
	Where string
	// Name is the name of the alert or the recorded series; empty for a panel.
	Name string
	// Text is the expression with the dashboard's variables replaced.
	Text string
	Expr parser.Expr
}

// about selects the expressions about the store from files for all components.
var about = regexp.MustCompile(`thanos-store`)

// Rules reads the expressions about the store from a file of Prometheus rules.
func Rules(path string) ([]Expression, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct{ Alert, Record, Expr string }
		}
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var out []Expression
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if !about.MatchString(r.Expr) {
				continue
			}
			name := r.Alert + r.Record
			e, err := newExpression(
				strings.Join([]string{filepath.Base(path), g.Name, name}, ": "), r.Expr,
			)
			if err != nil {
				return nil, err
			}
			e.Name = name
			out = append(out, e)
		}
	}
	return out, nil
}

// Dashboard reads the expressions of a Grafana dashboard. Of a dashboard for all components it
// reads the named rows only. variables are the values of the dashboard's variables, by name without
// the dollar sign.
func Dashboard(path string, variables map[string]string, rows ...string) ([]Expression, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Rows []struct {
			Title  string
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	variable := regexp.MustCompile(`\$(\w+)`)
	var out []Expression
	for _, row := range file.Rows {
		if len(rows) > 0 && !contains(rows, row.Title) {
			continue
		}
		for _, panel := range row.Panels {
			for _, t := range panel.Targets {
				where := strings.Join([]string{filepath.Base(path), row.Title, panel.Title}, ": ")
				unknown := ""
				text := variable.ReplaceAllStringFunc(t.Expr, func(v string) string {
					value, ok := variables[v[1:]]
					if !ok {
						unknown = v
					}
					return value
				})
				if unknown != "" {
					return nil, fmt.Errorf("%s: the variable %s has no value", where, unknown)
				}
				e, err := newExpression(where, text)
				if err != nil {
					return nil, err
				}
				out = append(out, e)
			}
		}
	}
	return out, nil
}

func contains(of []string, s string) bool {
	for _, o := range of {
		if o == s {
			return true
		}
	}
	return false
}

func newExpression(where, text string) (Expression, error) {
	e, err := parser.ParseExpr(text)
	if err != nil {
		return Expression{}, fmt.Errorf("%s: %w", where, err)
	}
	return Expression{Where: where, Text: text, Expr: e}, nil
}

// Selectors returns the vector selectors in the expression.
func (e Expression) Selectors() []*parser.VectorSelector {
	var out []*parser.VectorSelector
	parser.Inspect(e.Expr, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			out = append(out, s)
		}
		return nil
	})
	return out
}

// WithoutThresholds returns the expression with every comparison replaced by its left side: an
// alert's value, whether it fires or not.
func (e Expression) WithoutThresholds() (string, error) {
	again, err := parser.ParseExpr(e.Text) // it is changed
	if err != nil {
		return "", err
	}
	return bare(again).String(), nil
}

func bare(e parser.Expr) parser.Expr {
	switch e := e.(type) {
	case *parser.ParenExpr:
		e.Expr = bare(e.Expr)
	case *parser.BinaryExpr:
		e.LHS, e.RHS = bare(e.LHS), bare(e.RHS)
		if _, number := e.RHS.(*parser.NumberLiteral); number && e.Op.IsComparisonOperator() {
			return e.LHS
		}
	case *parser.AggregateExpr:
		e.Expr = bare(e.Expr)
	}
	return e
}
