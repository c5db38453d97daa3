package tune

import (
	"maps"
	"slices"
	"strings"
)

// Knob is a setting that the search varies.
type Knob struct {
	// Name is the name of a flag of `larder store`, or describes several flags or a constant.
	Name string
	// Values are ordered: neighbours differ least.
	Values []Value
	// Start is the index of the value at the start.
	Start int
	// Constant says that there is no flag for it. The search measures its other values, and never
	// chooses one.
	Constant bool
}

// Value is a value of a knob.
type Value struct {
	Text string
	// Flags set it. They are empty for the default.
	Flags []string
	// Show is what a user has to set. Default: Flags.
	Show string
}

// Setting is the index of the value of each knob, in the order of the knobs.
type Setting []int

// with returns the setting with another value of one knob.
func (s Setting) with(knob, value int) Setting {
	out := slices.Clone(s)
	out[knob] = value
	return out
}

// Flags returns the flags of a setting that differ from those of the start.
func Flags(knobs []Knob, s Setting) []string {
	var out []string
	for i, k := range knobs {
		if s[i] != k.Start && !k.Constant {
			out = append(out, k.Values[s[i]].Flags...)
		}
	}
	return out
}

// Sample is what one setting cost in one round.
type Sample struct {
	// Load has the figures of each scenario by its name.
	Load map[string]Figures
	// PeakBytes is the largest resident set. 0 = not known.
	PeakBytes float64
}

// Figures are the figures of a scenario: means of a request.
type Figures struct {
	// Weight is how often the scenario is asked, compared with others.
	Weight float64
	USD    float64 // per 1,000 requests
	// Seconds is the time until the end of the answer.
	Seconds float64
	// Budgeted says that the scenario has a budget. Over is by how much it is overrun: the sum of
	// the logarithms of time : budget over the rows that exceed theirs. 0 = kept.
	Budgeted bool
	Over     float64

	Reads, Bytes, Trips, CPUSeconds float64
}

// sum adds a figure over the scenarios, by their weights, for one request of the whole load.
func (s *Sample) sum(of func(Figures) float64) float64 {
	total, weights := 0.0, 0.0
	for _, name := range slices.Sorted(maps.Keys(s.Load)) {
		f := s.Load[name]
		total += f.Weight * of(f)
		weights += f.Weight
	}
	if weights == 0 {
		return 0
	}
	return total / weights
}

// Mean returns the means of a request of the whole load.
func (s *Sample) Mean() Figures {
	return Figures{
		USD:        s.sum(func(f Figures) float64 { return f.USD }),
		Seconds:    s.sum(func(f Figures) float64 { return f.Seconds }),
		Reads:      s.sum(func(f Figures) float64 { return f.Reads }),
		Bytes:      s.sum(func(f Figures) float64 { return f.Bytes }),
		Trips:      s.sum(func(f Figures) float64 { return f.Trips }),
		CPUSeconds: s.sum(func(f Figures) float64 { return f.CPUSeconds }),
		Over:       s.over(),
	}
}

// over adds the overruns of all scenarios, whatever their weight: each budget is a promise.
func (s *Sample) over() (total float64) {
	for _, name := range slices.Sorted(maps.Keys(s.Load)) {
		total += s.Load[name].Over
	}
	return total
}

// Describe names what a setting changes.
func Describe(knobs []Knob, s Setting) string {
	var out []string
	for i, k := range knobs {
		if s[i] != k.Start {
			out = append(out, k.Name+" "+k.Values[s[i]].Text)
		}
	}
	if len(out) == 0 {
		return "the start"
	}
	return strings.Join(out, ", ")
}
