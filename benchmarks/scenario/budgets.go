package scenario

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"go.yaml.in/yaml/v2"

	"larder/internal/yamldoc"
)

// Budgets is budgets.yaml.
type Budgets struct {
	// Quantile is the part of the requests that must keep their budget, above 0 and at most 1.
	Quantile float64 `yaml:"quantile"`
	Prices   Prices  `yaml:"prices"`
	// Budgets are the budgets by scenario.
	Budgets map[string]Budget `yaml:"budgets"`
}

// Budget is the time that a request may take, in total and by stage. 0 = not bounded. Stages
// overlap, therefore their sum may exceed the total.
type Budget struct {
	Total      time.Duration `yaml:"total"`
	FirstFrame time.Duration `yaml:"first_frame"`
	Gate       time.Duration `yaml:"gate"`
	Header     time.Duration `yaml:"header"`
	Postings   time.Duration `yaml:"postings"`
	Series     time.Duration `yaml:"series"`
	Chunks     time.Duration `yaml:"chunks"`
	Send       time.Duration `yaml:"send"`
}

// The rows of a budget that are no stages of a request.
const (
	Total      = "total"
	FirstFrame = "first frame"
)

// Rows are the rows of a budget: what the client sees, then the stages.
func Rows() []string {
	return []string{
		Total, FirstFrame, "gate", "header", "postings", "series", "chunks", "send",
	}
}

// Of returns the budget of a row; 0 = none.
func (b Budget) Of(row string) time.Duration {
	return map[string]time.Duration{
		Total: b.Total, FirstFrame: b.FirstFrame, "gate": b.Gate, "header": b.Header,
		"postings": b.Postings, "series": b.Series, "chunks": b.Chunks, "send": b.Send,
	}[row]
}

// Prices are prices in US dollars.
type Prices struct {
	// Get is the price of 1,000 reads, List of 1,000 list requests.
	Get  float64 `yaml:"get"`
	List float64 `yaml:"list"`
	// GiB is the price of reading a GiB from the bucket.
	GiB float64 `yaml:"gib"`
	// CPUHour is the price of one hour of one CPU.
	CPUHour float64 `yaml:"cpu_hour"`
}

// Thousand is the price of 1,000 queries that each use that much on average.
func (p Prices) Thousand(cpu time.Duration, gets, lists, bytes float64) float64 {
	return gets*p.Get + lists*p.List + 1000*bytes/(1<<30)*p.GiB + 1000*cpu.Hours()*p.CPUHour
}

// ParseBudgets parses budgets.yaml.
func ParseBudgets(text []byte) (*Budgets, error) {
	b := &Budgets{Quantile: 0.99}
	if err := yaml.UnmarshalStrict(text, b); err != nil {
		return nil, yamldoc.Shape{Of: b}.Explain(text, err)
	}
	if !(b.Quantile > 0 && b.Quantile <= 1) {
		return nil, fmt.Errorf("quantile: %v is not above 0 and at most 1", b.Quantile)
	}
	for _, name := range slices.Sorted(maps.Keys(b.Budgets)) {
		for _, row := range Rows() {
			if d := b.Budgets[name].Of(row); d < 0 {
				return nil, fmt.Errorf("budgets: %s: %s: %s is below zero", name, row, d)
			}
		}
	}
	p := b.Prices
	if p.Get < 0 || p.List < 0 || p.GiB < 0 || p.CPUHour < 0 {
		return nil, fmt.Errorf("prices: no price may be below zero")
	}
	return b, nil
}

// Without returns the budgets of scenarios that are not in the document.
func (b *Budgets) Without(d *Document) []string {
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(b.Budgets)) {
		if !slices.ContainsFunc(d.Scenarios, func(s Scenario) bool { return s.Name == name }) {
			missing = append(missing, name)
		}
	}
	return missing
}
