package report

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// version is the version of the JSON format. A report of another version cannot be read.
const version = 1

// Report is the result of one run.
type Report struct {
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	Larder  string    `json:"larder"`
	// Target says what was measured, Bucket what it served, and from where.
	Target string `json:"target"`
	Bucket string `json:"bucket"`
	CPUs   int    `json:"cpus"`
	Seed   uint64 `json:"seed"`
	// Quantile is the share of the requests that must keep their budget.
	Quantile float64 `json:"quantile"`
	// Notes say what the figures do not contain.
	Notes     []string   `json:"notes,omitempty"`
	Scenarios []Scenario `json:"scenarios"`
	// Tuning is the result of --tune; nil without.
	Tuning *Tuning `json:"tuning,omitempty"`
}

// Scenario is the result of one scenario. Figures that are not known are nil.
type Scenario struct {
	Name  string `json:"name"`
	About string `json:"about"`
	Load  string `json:"load"`
	// Skipped says why the scenario did not run; "" if it did.
	Skipped string `json:"skipped,omitempty"`

	Requests int     `json:"requests"`
	Errors   int     `json:"errors"`
	Error    string  `json:"error,omitempty"` // the first one
	Seconds  float64 `json:"seconds"`         // in which requests were measured

	Rows []Row `json:"rows"`
	// Curve is the distribution of the total time.
	Curve []Point `json:"curve"`

	// Means of a request.
	AnswerBytes float64  `json:"answer_bytes"`
	Series      *float64 `json:"series,omitempty"`
	Reads       *float64 `json:"bucket_reads,omitempty"`
	Others      *float64 `json:"bucket_others,omitempty"`
	ReadBytes   *float64 `json:"bucket_bytes,omitempty"`
	Trips       *float64 `json:"trips,omitempty"`
	// BusySeconds is for how long a read of the bucket was running, whatever else the machine did.
	BusySeconds *float64 `json:"busy_seconds,omitempty"`
	Hits        []Hits   `json:"hits,omitempty"`
	CPUSeconds  *float64 `json:"cpu_seconds,omitempty"`
	AllocBytes  *float64 `json:"alloc_bytes,omitempty"`
	Allocs      *float64 `json:"allocs,omitempty"`
	USD         *float64 `json:"usd_per_1000,omitempty"`

	PeakBytes *float64 `json:"peak_bytes,omitempty"`
	// PrefetchReads and PrefetchBytes are what the gateway has read into its disk cache in the
	// background since it started. They are no part of Reads, ReadBytes and USD.
	PrefetchReads *float64 `json:"prefetch_reads,omitempty"`
	PrefetchBytes *float64 `json:"prefetch_bytes,omitempty"`
}

// Row is the time of a part of a request, in milliseconds.
type Row struct {
	Name string `json:"name"`
	// Source says who measured it: client, gateway, metrics (upper bounds of histogram buckets) or
	// hints (query statistics in the answer).
	Source string  `json:"source"`
	P50    float64 `json:"p50"`
	P90    float64 `json:"p90"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
	// Mean is 0 if the source has histogram buckets only.
	Mean float64 `json:"mean,omitempty"`
	// At is the time at the quantile of the report, Budget its budget; 0 = none.
	At     float64 `json:"at"`
	Budget float64 `json:"budget,omitempty"`
}

// Over reports whether the row exceeds its budget.
func (r *Row) Over() bool { return r.Budget > 0 && r.At > r.Budget }

// Point is a point of a distribution: Share of the requests took MS or less.
type Point struct {
	Share float64 `json:"share"`
	MS    float64 `json:"ms"`
}

// Hits says where the pages or entries of a cache came from, per request.
type Hits struct {
	Cache string  `json:"cache"`
	Tier  string  `json:"tier"`
	Mean  float64 `json:"mean"`
	// Share of all that the requests looked up.
	Share float64 `json:"share"`
}

// Overruns lists the budgets that were not kept, and the scenarios with failed requests.
func (r *Report) Overruns() []string {
	var out []string
	for i := range r.Scenarios {
		s := &r.Scenarios[i]
		if why := s.failure(); why != "" {
			out = append(out, why)
		}
		for j := range s.Rows {
			if row := &s.Rows[j]; row.Over() {
				out = append(out, fmt.Sprintf("%s: %s: %s at %.4g %%, budget %s",
					s.Name, row.Name, ms(row.At), 100*r.Quantile, ms(row.Budget)))
			}
		}
	}
	return out
}

// failures lists the scenarios with failed requests.
func (r *Report) failures() (out []string) {
	for i := range r.Scenarios {
		if why := r.Scenarios[i].failure(); why != "" {
			out = append(out, why)
		}
	}
	return out
}

// failure says how many requests failed, and why. "" means none.
func (s *Scenario) failure() string {
	if s.Errors == 0 {
		return ""
	}
	return fmt.Sprintf("%s: %d of %d requests failed: %s", s.Name, s.Errors, s.Requests, s.Error)
}

// WriteJSON writes the report for Read.
func (r *Report) WriteJSON(w io.Writer) error {
	r.Version = version
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Read reads a report that WriteJSON wrote.
func Read(path string) (*Report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &Report{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: not a JSON report of larder bench: %w", path, err)
	}
	if r.Version != version {
		return nil, fmt.Errorf("%s: the report has version %d, this larder reads version %d: "+
			"measure again with one larder", path, r.Version, version)
	}
	return r, nil
}

// ReadRun reads a report of scenarios. It rejects the report of a search, which has none.
func ReadRun(path string) (*Report, error) {
	r, err := Read(path)
	if err == nil && r.Tuning != nil {
		return nil, fmt.Errorf("%s is the result of a search (--tune), which has no times of "+
			"scenarios: want a result of larder bench without --tune", path)
	}
	return r, err
}
