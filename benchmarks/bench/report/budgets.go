package report

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// The rule of WriteBudgets.
const (
	// budgetFactor is how many times the median of the runs a budget is.
	budgetFactor = 2
	// leastBudget is the smallest budget, in milliseconds. Below it, budgets would measure the
	// scheduler.
	leastBudget = 5
)

// WriteBudgets writes budgets for the scenarios of reports, as budgets.yaml has them. A budget is
// twice the median of what the runs took at the quantile of their reports, at least 5 ms, rounded
// up to two digits. Reports must agree about the quantile, the gateway and the bucket with its
// model, and may differ in their seeds. None of their requests may have failed, because a request
// that fails early would make a budget that none can keep.
func WriteBudgets(w io.Writer, reports []*Report) error {
	if len(reports) == 0 {
		return errors.New("no reports")
	}
	first := reports[0]
	for _, r := range reports[1:] {
		if r.kind() != first.kind() {
			return fmt.Errorf("reports differ: %s, and %s", first.kind(), r.kind())
		}
	}
	for _, r := range reports {
		if failed := r.failures(); len(failed) > 0 {
			return fmt.Errorf("the run of %s, seed %d, does not give budgets: %s",
				r.Created.Format(time.RFC3339), r.Seed, failed[0])
		}
	}
	p := &printer{w: w}
	if !slices.ContainsFunc(first.Scenarios, func(s Scenario) bool { return len(s.Rows) > 0 }) {
		return errors.New("the reports have no times of scenarios")
	}
	p.printf("# Twice the median of %d runs, at least %d ms: %s.\n", len(reports), leastBudget,
		first.kind())
	p.printf("quantile: %g\nbudgets:\n", first.Quantile)
	for i := range first.Scenarios {
		s := &first.Scenarios[i]
		var rows []string
		for _, row := range s.Rows {
			var at []float64
			for _, r := range reports {
				if other := r.scenario(s.Name); other != nil && other.row(row.Name) != nil {
					at = append(at, other.row(row.Name).At)
				}
			}
			rows = append(rows, fmt.Sprintf("%s: %gms", row.Name, budgetOf(at)))
		}
		if len(rows) > 0 {
			p.printf("  %s: {%s}\n", s.Name, strings.Join(rows, ", "))
		}
	}
	return p.err
}

// kind describes what was measured, without the seed.
func (r *Report) kind() string {
	bucket := strings.Replace(r.Bucket, fmt.Sprintf(", seed %d", r.Seed), "", 1)
	return fmt.Sprintf("%s, %s, at %g", r.Target, bucket, r.Quantile)
}

// scenario returns the scenario of a name, nil if there is none.
func (r *Report) scenario(name string) *Scenario {
	i := slices.IndexFunc(r.Scenarios, func(s Scenario) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &r.Scenarios[i]
}

// budgetOf returns a budget for times in milliseconds.
func budgetOf(at []float64) float64 {
	slices.Sort(at)
	median := (at[(len(at)-1)/2] + at[len(at)/2]) / 2
	ms := max(budgetFactor*median, leastBudget)
	unit := math.Pow(10, math.Floor(math.Log10(ms))-1)
	if ms < 10 {
		unit = 1
	}
	return math.Ceil(ms/unit-1e-9) * unit
}
