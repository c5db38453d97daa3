package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/units"

	"larder/benchmarks/bench"
	"larder/benchmarks/bench/report"
	"larder/benchmarks/scenario"
	"larder/benchmarks/tune"
)

// tuneConfig has the flags of `larder bench --tune`.
type tuneConfig struct {
	on           bool
	time         time.Duration
	memory, disk int64 // 0: no ceiling, no disk
	usd          float64
}

// Bounds of a scenario in one round of a search, which repeats rounds.
const (
	tuneFresh  = 2  // requests that each need a gateway of their own
	tuneSteady = 24 // other requests
	// tuneAttempts is how often a round runs whose requests fail, for instance because they time
	// out on a busy machine.
	tuneAttempts = 3
)

// tuner measures settings for a search.
type tuner struct {
	bench   *benchCommand
	gateway *benchGateway
	options bench.Options
	dir     string
	knobs   []knob
	last    *report.Report
	// tried has the settings whose flags are known to be possible or not.
	tried map[string]error
}

// tuned searches and returns the result.
func (b *benchCommand) tuned(
	ctx context.Context, o bench.Options, g *benchGateway, dir string, stderr io.Writer,
) (rep *report.Report, err error) {
	if b.tune.memory > 0 {
		// As the gateway does in a container of this size.
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(b.tune.memory / 10 * 9))
	}
	t := &tuner{bench: b, gateway: g, options: o, dir: dir, tried: map[string]error{}}
	// Settings with and without a disk are measured with one load.
	t.options.HasDisk = o.HasDisk || b.tune.disk > 0
	t.options.Document, err = tuningLoad(t.options)
	if err != nil {
		return nil, err
	}
	t.options.Only, t.options.Progress = nil, io.Discard
	g.memoryLimit = b.tune.memory
	if t.knobs, err = b.tuningKnobs(g); err != nil {
		return nil, err
	}
	result, err := tune.Run(ctx, tune.Options{
		Knobs: t.tuned(), Measure: t.measure, Time: b.tune.time, Progress: stderr,
		MemoryBytes: float64(b.tune.memory),
	})
	rep = &report.Report{
		Created: time.Now().
			UTC(),
		CPUs: runtime.GOMAXPROCS(0), Seed: o.Seed, Quantile: o.Budgets.Quantile,
	}
	if t.last != nil {
		rep.Notes = t.last.Notes
	}
	rep.Notes = append(rep.Notes, "cold times are the time with a read of the bucket running, "+
		"and CPU time; warm times are CPU time: other work of the machine hardly counts")
	rep.Tuning = t.report(result)
	return rep, err
}

// tuningLoad returns the scenarios of a search: those with a weight or, with --only, the selected
// ones. Each has few requests, because a search repeats them with other seeds.
func tuningLoad(o bench.Options) (*scenario.Document, error) {
	d := *o.Document
	d.Scenarios = nil
	for _, s := range o.Document.Scenarios {
		switch {
		case o.Only != nil && !o.Only.MatchString(s.Name), o.Only == nil && s.Tune == 0:
			continue
		case s.Cache == scenario.Restart && !o.HasDisk:
			continue
		case s.Rate > 0:
			return nil, fmt.Errorf("--tune: scenario %s is an open loop: choose scenarios with "+
				"a concurrency", s.Name)
		}
		s.Tune = cmp.Or(s.Tune, 1)
		most := tuneSteady
		if s.Fresh() {
			most = tuneFresh
		}
		if s.Requests == 0 || s.Requests > most {
			s.Requests = most
		}
		if s.Cache == scenario.Warm {
			s.Distinct = min(cmp.Or(s.Distinct, most), most)
		}
		s.Duration = 0
		d.Scenarios = append(d.Scenarios, s)
	}
	if len(d.Scenarios) == 0 {
		if o.Only != nil {
			return nil, fmt.Errorf("--only: no scenario is selected: the scenarios are %s",
				strings.Join(o.Document.Names(), ", "))
		}
		return nil, errors.New("--tune: no scenario has a weight: see tune in the document")
	}
	return &d, nil
}

// measure runs the load with a setting.
func (t *tuner) measure(
	ctx context.Context, s tune.Setting, round uint64,
) (sample tune.Sample, err error) {
	g := t.gateway
	g.args, g.constants = t.bench.gatewayArgs(t.dir), constants{}
	for i, k := range t.knobs {
		if k.set != nil {
			k.set(&g.constants, s[i])
		}
	}
	for _, f := range t.flags(s) {
		if name, _, _ := strings.Cut(f, "="); name == "--objstore.config" {
			g.args = slices.DeleteFunc(g.args, func(a string) bool {
				return strings.HasPrefix(a, "--objstore.config")
			})
		}
		g.args = append(g.args, f)
	}
	key := strings.Join(g.args, "\x00")
	if _, known := t.tried[key]; !known {
		t.tried[key] = g.try()
	}
	if err := t.tried[key]; err != nil {
		return sample, fmt.Errorf("%w: %w", tune.ErrInfeasible, err)
	}
	o := t.options
	o.Seed = t.options.Seed + round
	g.model.Seed, g.starts = o.Seed, 0
	for range tuneAttempts {
		// What is on disk from earlier would be hits that this setting did not earn.
		if err := emptyDisk(filepath.Join(t.dir, "data")); err != nil {
			return sample, err
		}
		r := bench.New(o)
		g.finished = r.Finished
		rep, e := r.Run(ctx)
		if e != nil {
			return sample, e
		}
		t.options.Subject, t.last = r.Subject(), rep
		if sample, err = t.sample(rep); err == nil {
			break
		}
		g.starts = 0
	}
	return sample, err
}

// flags returns the flags of a setting, of the knobs in their order.
func (t *tuner) flags(s tune.Setting) []string {
	var out []string
	for i, k := range t.knobs {
		out = append(out, k.Values[s[i]].Flags...)
	}
	return out
}

// sample takes the figures of a search from a report.
func (t *tuner) sample(rep *report.Report) (tune.Sample, error) {
	out := tune.Sample{Load: map[string]tune.Figures{}}
	for i := range rep.Scenarios {
		s := &rep.Scenarios[i]
		if s.Errors > 0 {
			return out, fmt.Errorf("scenario %s: %d of %d requests failed: %s",
				s.Name, s.Errors, s.Requests, s.Error)
		}
		known := func(v *float64) float64 {
			if v == nil {
				return 0
			}
			return *v
		}
		from := t.options.Document.Scenarios[i]
		f := tune.Figures{
			Weight: from.Tune, USD: known(s.USD), Reads: known(s.Reads), Bytes: known(s.ReadBytes),
			Trips: known(s.Trips), CPUSeconds: known(s.CPUSeconds),
		}
		// By Little's law, each of n clients waits n times as long as the bucket is busy for one.
		f.Seconds = known(s.BusySeconds)*float64(from.Clients()) + f.CPUSeconds
		for j := range s.Rows {
			if r := &s.Rows[j]; r.Budget > 0 {
				f.Budgeted = true
				f.Over += max(math.Log(r.At/r.Budget), 0)
			}
		}
		out.Load[s.Name] = f
		out.PeakBytes = max(out.PeakBytes, known(s.PeakBytes))
	}
	return out, nil
}

// report describes the result of a search.
func (t *tuner) report(r *tune.Result) *report.Tuning {
	out := &report.Tuning{
		Runs: r.Measured, Seconds: r.Took.Seconds(), MinGain: tune.DefaultMinGain,
		Slack: tune.DefaultSlack, Ceilings: t.bench.tune.ceilings(),
	}
	for i := range t.knobs {
		out.Knobs = append(out.Knobs, t.knobs[i].report(i, r))
	}
	if r.Setting == nil {
		out.Undecided = true
		out.Verdict = "The search ended before it was certain. So far it preferred " +
			tune.Describe(t.tuned(), r.Found) + "."
		return out
	}
	if r.Final.Rounds > 0 {
		out.Final = trial(&r.Final, r.FinalWhy)
		out.Final.Value, out.Final.Than = "the result", "the start"
	}
	for i, k := range t.knobs {
		switch v := k.Values[r.Setting[i]]; {
		case r.Setting[i] == k.Start:
		case v.Show != "":
			out.Flags = append(out.Flags, v.Show)
		default:
			out.Flags = append(out.Flags, v.Flags...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Start.Load)) {
		out.Load = append(out.Load, report.Part{
			Name: name, Weight: r.Start.Load[name].Weight,
			Start: costs(r.Start.Load[name]), End: costs(r.End.Load[name]),
			Budgeted: r.Start.Load[name].Budgeted,
		})
	}
	switch {
	case len(out.Flags) > 0:
		out.Verdict = fmt.Sprintf(
			"These flags are better than the start (%s): dollars %s, time %s.",
			r.FinalWhy,
			out.Final.USD,
			out.Final.Time,
		)
	case r.Final.Rounds > 0:
		out.Verdict = "Keep the flags of the start. The search preferred " +
			tune.Describe(t.tuned(), r.Found) + ", but not in rounds that it had not seen: " +
			r.FinalWhy + "."
	case t.undecided(r):
		out.Undecided = true
		out.Verdict = "Nothing was decided: --tune-time is too short. " +
			"Keep the flags of the start, and search longer."
	default:
		out.Verdict = "Keep the flags of the start: nothing was significantly better."
	}
	if len(r.Unfinished) > 0 {
		out.Verdict += " --tune-time did not suffice for " + strings.Join(r.Unfinished, ", ") + "."
	}
	end := r.End.Mean()
	var failures []string
	if end.Over > 0 {
		failures = append(failures, "No setting that was measured keeps all budgets.")
	}
	if usd := t.bench.tune.usd; usd > 0 && end.USD > usd {
		failures = append(failures, fmt.Sprintf(
			"1,000 requests cost %.3g US dollars, more than --tune-usd=%g.", end.USD, usd))
	}
	out.Failure = strings.Join(failures, " ")
	return out
}

// undecided reports whether the time did not suffice for any flag.
func (t *tuner) undecided(r *tune.Result) bool {
	return !slices.ContainsFunc(t.knobs, func(k knob) bool {
		return !k.Constant && !slices.Contains(r.Unfinished, k.Name)
	})
}

// ceilings describes the ceilings.
func (c *tuneConfig) ceilings() (out []string) {
	if c.memory > 0 {
		out = append(out, fmt.Sprintf("memory: %s, as in a container of that size",
			units.Base2Bytes(c.memory)))
	}
	if c.disk > 0 {
		out = append(out, fmt.Sprintf("disk cache: %s", units.Base2Bytes(c.disk)))
	}
	if c.usd > 0 {
		out = append(out, fmt.Sprintf("cost: %g US dollars for 1,000 requests", c.usd))
	}
	return out
}

// tuned returns the knobs of the search.
func (t *tuner) tuned() (out []tune.Knob) {
	for _, k := range t.knobs {
		out = append(out, k.Knob)
	}
	return out
}

func costs(f tune.Figures) report.Costs {
	return report.Costs{
		USD: f.USD, MS: 1e3 * f.Seconds, CPUMS: 1e3 * f.CPUSeconds, Reads: f.Reads, Bytes: f.Bytes,
		Trips: f.Trips, Over: f.Over,
	}
}

func trial(c *tune.Comparison, why string) report.Trial {
	known := func(r tune.Ratio) report.Ratio { return report.Known(r.Mean, r.Low, r.High) }
	return report.Trial{
		Rounds: c.Rounds, USD: known(c.USD), Time: known(c.Seconds), Reads: known(c.Reads),
		Bytes: known(c.Bytes), CPU: known(c.CPU), Over: c.Over, Verdict: why,
	}
}
