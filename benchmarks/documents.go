// Package benchmarks holds the two documents that `larder bench` uses by default: scenarios.yaml
// has the queries and loads, budgets.yaml the time that they may take. Package scenario parses the
// former, package budget the latter.
package benchmarks

import _ "embed"

//go:embed scenarios.yaml
var scenarios []byte

//go:embed budgets.yaml
var budgets []byte

// Scenarios returns scenarios.yaml. The caller must not change it.
func Scenarios() []byte { return scenarios }

// Budgets returns budgets.yaml. The caller must not change it.
func Budgets() []byte { return budgets }
