package scenario

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v2"

	"larder/internal/yamldoc"
)

// Document is scenarios.yaml.
type Document struct {
	Queries []Query `yaml:"queries"`
	// Mixes are weighted sets of queries: name -> query -> weight.
	Mixes     map[string]map[string]int `yaml:"mixes"`
	Scenarios []Scenario                `yaml:"scenarios"`
}

// Query is a template of requests. Exactly one of Series, LabelValues and LabelNames is set.
type Query struct {
	Name  string `yaml:"name"`
	About string `yaml:"about"`
	// Series is the selector of a Series request.
	Series string `yaml:"series"`
	// LabelValues is the label whose values are asked for.
	LabelValues string `yaml:"label_values"`
	// LabelNames asks for label names.
	LabelNames bool `yaml:"label_names"`
	// Matchers is the selector of a label request; empty: none.
	Matchers string `yaml:"matchers"`
	// Range is the length of the time range. 0 = 1 hour.
	Range time.Duration `yaml:"range"`
	// Within is the age up to which the data is asked for: the range lies anywhere in it. 0 = the
	// newest Range.
	Within time.Duration `yaml:"within"`
	// Resolution is the coarsest resolution that may answer. 0 = raw.
	Resolution time.Duration `yaml:"resolution"`
	// Aggregates of downsampled data: count, sum, min, max, counter. None: count and sum.
	Aggregates []string `yaml:"aggregates"`
	SkipChunks bool     `yaml:"skip_chunks"`
	// Limit is the maximum number of series or strings in the answer. 0 = no limit.
	Limit int64 `yaml:"limit"`
}

// Cache states before a scenario.
const (
	Cold = "cold" // nothing cached in memory and on disk, but index headers
	Warm = "warm" // each request was answered before
	// Restart: each request was answered before a restart, which has emptied the memory and kept
	// the disk cache.
	Restart = "restart"
)

// Scenario is a load. Exactly one of Query and Mix is set, and at most one of Concurrency and Rate.
type Scenario struct {
	Name  string `yaml:"name"`
	Query string `yaml:"query"`
	Mix   string `yaml:"mix"`
	Cache string `yaml:"cache"`
	// Concurrency is the number of clients of a closed loop: each asks again once it has its
	// answer. 0 = 1, unless Rate is set.
	Concurrency int `yaml:"concurrency"`
	// Rate is the number of requests that begin in a second, on average, in an open loop.
	Rate float64 `yaml:"rate"`
	// Requests and Duration end the scenario, whichever comes first. 0 = not. Scenarios that are
	// not warm need Requests, because their requests do not repeat.
	Requests int           `yaml:"requests"`
	Duration time.Duration `yaml:"duration"`
	// Distinct is the number of different requests that a warm scenario repeats. 0 = 20 of a
	// query, 100 of a mix.
	Distinct int `yaml:"distinct"`
	// Tune is the weight of the scenario in the load of `larder bench --tune`. 0 = it has no part.
	Tune float64 `yaml:"tune"`
}

// Parse parses scenarios.yaml.
func Parse(text []byte) (*Document, error) {
	d := &Document{}
	if err := yaml.UnmarshalStrict(text, d); err != nil {
		return nil, yamldoc.Shape{Of: d}.Explain(text, err)
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return d, nil
}

// Names returns the names of the scenarios.
func (d *Document) Names() []string {
	var names []string
	for _, s := range d.Scenarios {
		names = append(names, s.Name)
	}
	return names
}

// query returns the query of a name, nil if there is none.
func (d *Document) query(name string) *Query {
	i := slices.IndexFunc(d.Queries, func(q Query) bool { return q.Name == name })
	if i < 0 {
		return nil
	}
	return &d.Queries[i]
}

func (d *Document) check() error {
	if len(d.Queries) == 0 || len(d.Scenarios) == 0 {
		return errors.New("queries and scenarios are required and must not be empty")
	}
	seen := map[string]bool{}
	for i := range d.Queries {
		q := &d.Queries[i]
		if q.Name == "" {
			return fmt.Errorf("queries[%d]: name is required", i)
		}
		if seen[q.Name] {
			return fmt.Errorf("queries: %s is there twice", q.Name)
		}
		seen[q.Name] = true
		if err := q.check(); err != nil {
			return fmt.Errorf("queries: %s: %w", q.Name, err)
		}
	}
	for name, mix := range d.Mixes {
		total := 0
		for q, weight := range mix {
			if d.query(q) == nil {
				return fmt.Errorf("mixes: %s: there is no query %s: known queries are %s",
					name, q, d.names())
			}
			if weight < 0 {
				return fmt.Errorf("mixes: %s: %s: the weight must not be below zero", name, q)
			}
			total += weight
		}
		if total == 0 {
			return fmt.Errorf("mixes: %s: the weights must not all be 0", name)
		}
	}
	clear(seen)
	for i := range d.Scenarios {
		s := &d.Scenarios[i]
		if s.Name == "" {
			return fmt.Errorf("scenarios[%d]: name is required", i)
		}
		if seen[s.Name] {
			return fmt.Errorf("scenarios: %s is there twice", s.Name)
		}
		seen[s.Name] = true
		if err := d.checkScenario(s); err != nil {
			return fmt.Errorf("scenarios: %s: %w", s.Name, err)
		}
	}
	return nil
}

// names lists the queries.
func (d *Document) names() string {
	var names []string
	for _, q := range d.Queries {
		names = append(names, q.Name)
	}
	return strings.Join(names, ", ")
}

func (d *Document) checkScenario(s *Scenario) error {
	switch {
	case (s.Query == "") == (s.Mix == ""):
		return errors.New("exactly one of query and mix is required")
	case s.Query != "" && d.query(s.Query) == nil:
		return fmt.Errorf("there is no query %s: known queries are %s", s.Query, d.names())
	case s.Mix != "" && d.Mixes[s.Mix] == nil:
		return fmt.Errorf("there is no mix %s", s.Mix)
	case s.Cache != Cold && s.Cache != Warm && s.Cache != Restart:
		return fmt.Errorf("cache: got %q, want %s, %s or %s", s.Cache, Cold, Warm, Restart)
	case s.Concurrency != 0 && s.Rate != 0:
		return errors.New(
			"concurrency and rate are mutually exclusive: a closed loop has clients, " +
				"an open loop has a rate",
		)
	case s.Concurrency < 0 || s.Rate < 0 || s.Requests < 0 || s.Duration < 0 || s.Distinct < 0 ||
		s.Tune < 0:
		return errors.New(
			"concurrency, rate, requests, duration, distinct and tune must not be below zero")
	case s.Requests == 0 && s.Duration == 0:
		return errors.New("requests or duration is required")
	case s.Requests == 0 && s.Cache != Warm:
		return fmt.Errorf("a %s scenario needs requests, because it asks each only once", s.Cache)
	case s.Cache != Warm && s.Distinct != 0:
		return fmt.Errorf("distinct is for warm scenarios: a %s one repeats no request", s.Cache)
	}
	return nil
}

// Clients is the number of clients of a closed loop, 0 for an open loop.
func (s *Scenario) Clients() int {
	if s.Rate > 0 {
		return 0
	}
	return max(s.Concurrency, 1)
}

// Fresh reports whether each request of the scenario needs empty caches of its own.
func (s *Scenario) Fresh() bool { return s.Cache == Cold && s.Clients() == 1 }

// draws is the number of requests to draw.
func (s *Scenario) draws() int {
	switch {
	case s.Cache != Warm:
		return s.Requests
	case s.Distinct > 0:
		return s.Distinct
	case s.Mix != "":
		return 100
	}
	return 20
}
