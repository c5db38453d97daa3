package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// Tuning is the result of `larder bench --tune`.
type Tuning struct {
	// Flags of `larder store` are better than those of the start; none: nothing is.
	Flags []string `json:"flags,omitempty"`
	// Verdict says so in a sentence.
	Verdict string `json:"verdict"`
	// Undecided says that the search ended before it could decide anything.
	Undecided bool `json:"undecided,omitempty"`
	// Failure says why no setting is good enough; "" if one is.
	Failure string `json:"failure,omitempty"`
	// Ceilings are bounds in words.
	Ceilings []string `json:"ceilings,omitempty"`
	Knobs    []Knob   `json:"knobs"`
	// Final compares what the search found with the start. Rounds is 0 if it found nothing.
	Final Trial `json:"final"`
	// Load are the scenarios with their costs, at the start and with Flags.
	Load []Part `json:"load"`

	Runs    int     `json:"runs"` // how often a setting was measured
	Seconds float64 `json:"seconds"`
	MinGain float64 `json:"min_gain"`
	Slack   float64 `json:"slack"`
}

// Knob is a flag or constant with the values that were measured.
type Knob struct {
	Name  string `json:"name"`
	Start string `json:"start"`
	// Best is the value of the result.
	Best     string `json:"best"`
	Constant bool   `json:"constant,omitempty"`
	// Outcome says what the search concluded.
	Outcome string  `json:"outcome"`
	Trials  []Trial `json:"trials,omitempty"`
}

// Trial compares a value with the one that was in force.
type Trial struct {
	Value  string `json:"value"`
	Than   string `json:"than"`
	With   string `json:"with"`
	Rounds int    `json:"rounds"`
	USD    Ratio  `json:"usd"`
	Time   Ratio  `json:"time"`
	Reads  Ratio  `json:"reads"`
	Bytes  Ratio  `json:"bytes"`
	CPU    Ratio  `json:"cpu"`
	// Over is by how much more budgets are overrun: the logarithm of the times.
	Over    float64 `json:"over"`
	Better  bool    `json:"better"`
	Verdict string  `json:"verdict"`
}

// Ratio is a quotient with its confidence interval. Bounds that are not known are nil.
type Ratio struct {
	Mean float64  `json:"mean"`
	Low  *float64 `json:"low,omitempty"`
	High *float64 `json:"high,omitempty"`
}

// Part is a scenario of the load.
type Part struct {
	Name   string  `json:"name"`
	Weight float64 `json:"weight"`
	Start  Costs   `json:"start"`
	End    Costs   `json:"end"`
	// Budgeted says that the scenario has a budget.
	Budgeted bool `json:"budgeted"`
}

// Budgeted reports whether some scenario of the load has a budget.
func (t *Tuning) Budgeted() bool {
	return slices.ContainsFunc(t.Load, func(l Part) bool { return l.Budgeted })
}

// noBudgets says that a search had none.
const noBudgets = "There are no budgets for this bucket: give --budgets to search with yours."

// Unbudgeted says that there are no budgets, "" if there are some or nothing was measured.
func (t *Tuning) Unbudgeted() string {
	if len(t.Load) == 0 || t.Budgeted() {
		return ""
	}
	return noBudgets
}

// Unmeasured names the knobs that were not measured.
func (t *Tuning) Unmeasured() string {
	var names []string
	for _, k := range t.Knobs {
		if len(k.Trials) == 0 {
			names = append(names, k.Name)
		}
	}
	return strings.Join(names, ", ")
}

// Costs are means of a request.
type Costs struct {
	USD   float64 `json:"usd_per_1000"`
	MS    float64 `json:"ms"`
	CPUMS float64 `json:"cpu_ms"`
	Reads float64 `json:"reads"`
	Bytes float64 `json:"bytes"`
	Trips float64 `json:"trips"`
	// Over is the sum of the logarithms of time : budget of rows above their budgets.
	Over float64 `json:"over"`
}

// write writes the result as text.
func (t *Tuning) write(p *printer) {
	p.printf("\nTuning: %d runs in %s\n", t.Runs, duration(t.Seconds))
	for _, c := range t.Ceilings {
		p.printf("  %s\n", c)
	}
	p.printf(
		"\nQuotients compare with the value that was in force; below 1 is better. In brackets: "+
			"the 95 %% interval.\nA gain counts from %.3g %%. Scenarios without a budget may "+
			"take %.3g %% more time than at the start.\n\n",
		100*t.MinGain,
		100*t.Slack,
	)
	tw := tabwriter.NewWriter(p, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "knob\tvalue\tthan\tdollars\ttime\treads\tbytes\trounds\t")
	for i := range t.Knobs {
		t.Knobs[i].write(tw)
	}
	if t.Final.Rounds > 0 {
		t.Final.write(tw, "the result", "compared")
	}
	flush(tw, p)
	p.printf("\n")
	tw = tabwriter.NewWriter(p, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "load\tweight\tUSD per 1,000\tms\tCPU ms\treads\tkB\tover budget\t")
	for _, l := range t.Load {
		l.write(tw, len(t.Flags) > 0)
	}
	flush(tw, p)
	if why := t.Unbudgeted(); why != "" {
		p.printf("\n%s\n", why)
	}
	p.printf("\n%s\n", t.Verdict)
	if len(t.Flags) > 0 {
		p.printf("\n  %s\n", strings.Join(t.Flags, "\n  "))
	}
	if t.Failure != "" {
		p.printf("\n%s\n", t.Failure)
	}
}

func flush(tw *tabwriter.Writer, p *printer) {
	if err := tw.Flush(); err != nil && p.err == nil {
		p.err = err
	}
}

func (k *Knob) write(w *tabwriter.Writer) {
	name := k.Name
	for i := range k.Trials {
		k.Trials[i].write(w, name, k.Trials[i].Value)
		name = ""
	}
	fmt.Fprintf(w, "%s\t= %s\t\t%s\t\t\t\t\t\n", name, k.Best, k.Outcome)
}

func (t *Trial) write(w *tabwriter.Writer, name, value string) {
	mark := ""
	if t.Better {
		mark = "*"
	}
	fmt.Fprintf(w, "%s\t%s%s\t%s\t%s\t%s\t%s\t%s\t%d  %s\t\n", name, mark, value, t.Than,
		t.USD, t.Time, t.Reads.short(), t.Bytes.short(), t.Rounds, t.Verdict)
}

func (l *Part) write(w *tabwriter.Writer, changed bool) {
	pair := func(format string, of func(*Costs) float64) string {
		s := fmt.Sprintf(format, digits(of(&l.Start)))
		if changed {
			s += " -> " + digits(of(&l.End))
		}
		return s
	}
	over := "no budget"
	if l.Budgeted {
		over = pair("%s", func(c *Costs) float64 { return c.Over })
	}
	fmt.Fprintf(w, "%s\t%g\t%s\t%s\t%s\t%s\t%s\t%s\t\n", l.Name, l.Weight,
		pair("%s", func(c *Costs) float64 { return c.USD }),
		pair("%s", func(c *Costs) float64 { return c.MS }),
		pair("%s", func(c *Costs) float64 { return c.CPUMS }),
		pair("%s", func(c *Costs) float64 { return c.Reads }),
		pair("%s", func(c *Costs) float64 { return c.Bytes / 1000 }),
		over)
}

// String formats a quotient with its interval, if that is known.
func (r Ratio) String() string {
	if r.Low == nil || r.High == nil {
		return r.short()
	}
	return fmt.Sprintf("%.3f (%.3f-%.3f)", r.Mean, *r.Low, *r.High)
}

func (r Ratio) short() string { return fmt.Sprintf("%.3f", r.Mean) }

// Known returns a quotient. Bounds that are not finite are left out, because JSON has none.
func Known(mean, low, high float64) Ratio {
	r := Ratio{Mean: mean}
	bad := func(v float64) bool { return math.IsInf(v, 0) || math.IsNaN(v) || v > 1e6 }
	if !bad(low) && !bad(high) {
		r.Low, r.High = &low, &high
	}
	return r
}

// Chosen lists the flags with other values than at the start.
func (t *Tuning) Chosen() []Knob {
	return slices.DeleteFunc(slices.Clone(t.Knobs), func(k Knob) bool { return k.Best == k.Start })
}

// duration formats seconds for a person.
func duration(seconds float64) string {
	if seconds < 60 {
		return digits(seconds) + " s"
	}
	return fmt.Sprintf("%.0f min %02.0f s", math.Floor(seconds/60), math.Mod(seconds, 60))
}
