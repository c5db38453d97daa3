package budget

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"go.yaml.in/yaml/v2"

	"larder/internal/yamldoc"
)

// Document is budgets.yaml.
type Document struct {
	// Quantile is the part of the requests of a scenario that must keep their budget, above 0 and
	// at most 1.
	Quantile float64 `yaml:"quantile"`
	Prices   Prices  `yaml:"prices"`
	// Budgets are the budgets by scenario.
	Budgets map[string]Times `yaml:"budgets"`
	// Requests are the budgets of a running gateway.
	Requests Requests `yaml:"requests"`
	// BucketRead is the time from which a read of the bucket without a first byte may be hedged.
	// 0 = the times of recent reads alone decide.
	BucketRead time.Duration `yaml:"bucket_read"`
}

// Requests are the budgets of requests by method.
type Requests struct {
	Series      Times `yaml:"series"`
	LabelNames  Times `yaml:"label_names"`
	LabelValues Times `yaml:"label_values"`
}

// Times is the time that a request may take, in total and by stage. 0 = not bounded. Stages
// overlap, therefore their sum may exceed the total.
type Times struct {
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
	FirstFrame = "first_frame"
)

// Rows are the rows of a budget, with the names of their keys: what the client sees, then the
// stages.
func Rows() []string {
	return []string{
		Total, FirstFrame, "gate", "header", "postings", "series", "chunks", "send",
	}
}

// Of returns the budget of a row; 0 = none.
func (t *Times) Of(row string) time.Duration {
	switch row {
	case Total:
		return t.Total
	case FirstFrame:
		return t.FirstFrame
	case "gate":
		return t.Gate
	case "header":
		return t.Header
	case "postings":
		return t.Postings
	case "series":
		return t.Series
	case "chunks":
		return t.Chunks
	case "send":
		return t.Send
	}
	return 0
}

func (t *Times) check() error {
	for _, row := range Rows() {
		if d := t.Of(row); d < 0 {
			return fmt.Errorf("%s: %s is below zero", row, d)
		}
	}
	return nil
}

// Methods are the methods that have budgets.
func Methods() []string { return []string{"Series", "LabelNames", "LabelValues"} }

// Applies reports whether the requests of a method have a row. Label requests send no frames and
// read no chunks.
func Applies(method, row string) bool {
	return method == "Series" || row != FirstFrame && row != "chunks" && row != "send"
}

// Of returns the budgets of a method, such as LabelNames.
func (r *Requests) Of(method string) *Times {
	switch method {
	case "LabelNames":
		return &r.LabelNames
	case "LabelValues":
		return &r.LabelValues
	}
	return &r.Series
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

// Parse parses a document. What it does not say of requests, bucket reads and prices is taken from
// base, nil for no budgets and prices. Unknown keys are errors.
func Parse(text []byte, base *Document) (*Document, error) {
	d := &Document{Quantile: 0.99}
	if base != nil {
		d.Requests, d.BucketRead, d.Prices = base.Requests, base.BucketRead, base.Prices
	}
	if err := yaml.UnmarshalStrict(text, d); err != nil {
		return nil, yamldoc.Shape{Of: d}.Explain(text, err)
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Document) check() error {
	if !(d.Quantile > 0 && d.Quantile <= 1) {
		return fmt.Errorf("quantile: %v is not above 0 and at most 1", d.Quantile)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Budgets)) {
		t := d.Budgets[name]
		if err := t.check(); err != nil {
			return fmt.Errorf("budgets: %s: %w", name, err)
		}
	}
	for i, key := range []string{"series", "label_names", "label_values"} {
		method := Methods()[i]
		t := d.Requests.Of(method)
		if err := t.check(); err != nil {
			return fmt.Errorf("requests: %s: %w", key, err)
		}
		for _, row := range Rows() {
			if t.Of(row) != 0 && !Applies(method, row) {
				return fmt.Errorf("requests: %s: %s is only for series", key, row)
			}
		}
	}
	if d.BucketRead < 0 {
		return fmt.Errorf("bucket_read: %s is below zero", d.BucketRead)
	}
	p := d.Prices
	if p.Get < 0 || p.List < 0 || p.GiB < 0 || p.CPUHour < 0 {
		return fmt.Errorf("prices: no price may be below zero")
	}
	return nil
}

// Except returns the scenarios of the budgets that are not in names.
func (d *Document) Except(names []string) []string {
	var other []string
	for _, name := range slices.Sorted(maps.Keys(d.Budgets)) {
		if !slices.Contains(names, name) {
			other = append(other, name)
		}
	}
	return other
}
