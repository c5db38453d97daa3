package tune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// Options configure a search. Knobs and Measure are required.
type Options struct {
	Knobs []Knob
	// Measure runs a setting in a round, which is a seed. ErrInfeasible says that it cannot run,
	// for instance because its caches do not fit into the memory ceiling.
	Measure func(ctx context.Context, s Setting, round uint64) (Sample, error)
	// Time bounds the search. Default 20 minutes. A measurement that runs ends.
	Time time.Duration
	// MinGain is the least difference that counts, as a part of 1. Default 0.02.
	MinGain float64
	// Slack is the part by which a scenario without a budget may be slower than at the start.
	// Default 0.1.
	Slack float64
	// MemoryBytes bounds the largest resident set. 0 = not bounded.
	MemoryBytes float64
	// Rounds is the largest number of rounds of one comparison. Default 8.
	Rounds int
	// Progress gets lines about the progress; default: none.
	Progress io.Writer
}

// ErrInfeasible is returned by Options.Measure for a setting that cannot run.
var ErrInfeasible = errors.New("this setting cannot run")

// Trial is a value that was compared.
type Trial struct {
	Knob  int
	Value int
	// Than is the value that was current then.
	Than int
	// With describes the other settings that had changed by then.
	With string
	Comparison
	// Promising says that it was better than the current value, Better that it became the current
	// value. Why gives the reason.
	Promising, Better bool
	Why               string
}

// Result is the result of a search.
type Result struct {
	// Setting is the best setting found, that of the start if nothing is significantly better. nil:
	// the search ended before its last comparison.
	Setting Setting
	// Found is what the search preferred before its last comparison.
	Found Setting
	// Final compares Found with the start, in rounds of their own. Start and End are the means of
	// their samples; End is that of Setting. Rounds is 0 if Found is the start.
	Final      Comparison
	FinalWhy   string
	Start, End Sample
	Trials     []Trial
	// Effect is the largest effect of a knob that screening found; NaN: not measured.
	Effect []float64
	// Unfinished names the knobs that the time did not suffice for.
	Unfinished []string
	Measured   int // runs of a setting
	Took       time.Duration
}

// Defaults of Options.
const (
	DefaultMinGain = 0.02
	DefaultSlack   = 0.1
)

const (
	screeningRounds = 2
	constantRounds  = 3
	firstRounds     = 2
	finalRounds     = 6
	// finalRound is the first round of the last comparison. The search does not reach it.
	finalRound = 1 << 20
	// finalShare is the part of the time that is kept for the last comparison.
	finalShare = 0.2
	// noEffect is an effect that is not worth a search, as a part of MinGain.
	noEffect = 0.5
	// maxPasses bounds the passes through the knobs.
	maxPasses = 3
)

type search struct {
	Options
	began   time.Time
	current Setting
	times   map[string]float64 // of current : the start, see compare
	round   uint64
	result  *Result
}

var errTime = errors.New("the time is over")

// Run searches. After an error, or once ctx has ended, it returns what it has.
func Run(ctx context.Context, o Options) (*Result, error) {
	o.Time = cmp.Or(o.Time, 20*time.Minute)
	o.MinGain = cmp.Or(o.MinGain, DefaultMinGain)
	o.Slack = cmp.Or(o.Slack, DefaultSlack)
	o.Rounds = cmp.Or(o.Rounds, 8)
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	s := &search{Options: o, began: time.Now(), times: map[string]float64{}, result: &Result{}}
	for range o.Knobs {
		s.result.Effect = append(s.result.Effect, math.NaN())
	}
	s.current = s.start()
	order, err := s.screen(ctx)
	if err == nil {
		err = s.descend(ctx, order)
	}
	if err == nil || errors.Is(err, errTime) {
		err = s.constants(ctx)
	}
	if err == nil || errors.Is(err, errTime) {
		err = s.finish(ctx)
	}
	s.result.Found, s.result.Took = s.current, time.Since(s.began)
	return s.result, err
}

func (s *search) start() Setting {
	var out Setting
	for _, k := range s.Knobs {
		out = append(out, k.Start)
	}
	return out
}

// late reports whether only the last comparison has time left.
func (s *search) late() bool {
	return time.Since(s.began) > time.Duration((1-finalShare)*float64(s.Time))
}

// race compares settings with the first of them, in rounds with other seeds each time. It appends
// the samples of a round to samples.
func (s *search) race(ctx context.Context, settings []Setting, samples [][]Sample) error {
	round := s.round
	s.round++
	n := len(settings)
	for i := range n {
		k := (i + int(round)) % n // each round in another order
		if err := ctx.Err(); err != nil {
			return err
		}
		sample, err := s.Measure(ctx, settings[k], round)
		if err != nil {
			return err
		}
		s.result.Measured++
		samples[k] = append(samples[k], sample)
	}
	return nil
}

// feasible runs one round of each setting alone, and returns those that can run.
func (s *search) feasible(
	ctx context.Context, settings []Setting,
) (out []Setting, samples [][]Sample, err error) {
	for i, set := range settings {
		sample, err := s.Measure(ctx, set, s.round)
		if errors.Is(err, ErrInfeasible) && i > 0 {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		s.result.Measured++
		out = append(out, set)
		samples = append(samples, []Sample{sample})
	}
	s.round++
	return out, samples, nil
}

// screen measures the ends of each flag, and returns the knobs with an effect, the largest first.
func (s *search) screen(ctx context.Context) ([]int, error) {
	var order []int
	for k, knob := range s.Knobs {
		if knob.Constant {
			continue
		}
		ends := slices.Compact([]int{0, len(knob.Values) - 1})
		impossible, err := s.try(ctx, k, ends, screeningRounds)
		if err != nil {
			return nil, err
		}
		// An end that cannot run says nothing about the values before it.
		if s.result.Effect[k] >= noEffect*s.MinGain || impossible > 0 {
			order = append(order, k)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(s.result.Effect[b], s.result.Effect[a])
	})
	return order, nil
}

// constants measures all values of the constants, beside the flags that were found.
func (s *search) constants(ctx context.Context) error {
	for k, knob := range s.Knobs {
		if !knob.Constant {
			continue
		}
		var all []int
		for v := range knob.Values {
			all = append(all, v)
		}
		if _, err := s.try(ctx, k, all, constantRounds); err != nil {
			return err
		}
	}
	return nil
}

// try compares values of a knob with the current one. It changes nothing but Effect and Trials. It
// returns how many of the values cannot run.
func (s *search) try(
	ctx context.Context, k int, values []int, rounds int,
) (impossible int, err error) {
	if s.late() {
		s.unfinished(k)
		return 0, nil
	}
	settings := []Setting{s.current}
	for _, v := range values {
		if v != s.current[k] {
			settings = append(settings, s.current.with(k, v))
		}
	}
	fmt.Fprintf(s.Progress, "%s: trying %d values, %s left\n", s.Knobs[k].Name,
		len(settings)-1, s.left())
	wanted := len(settings)
	settings, samples, err := s.feasible(ctx, settings)
	if err != nil {
		return 0, err
	}
	for range rounds - 1 {
		if err := s.race(ctx, settings, samples); err != nil {
			return 0, err
		}
	}
	effect := 0.0
	for i := 1; i < len(settings); i++ {
		c := compare(samples[0], samples[i], s.times, s.Slack)
		effect = max(effect, math.Abs(math.Log(c.USD.Mean)), math.Abs(c.Over),
			math.Abs(math.Log(c.Seconds.Mean))*s.MinGain/s.minFaster())
		v, why := s.verdict(&c)
		s.note(k, settings[i][k], c, false, why)
		s.result.Trials[len(s.result.Trials)-1].Promising = v == better
	}
	s.result.Effect[k] = effect
	return wanted - len(settings), nil
}

// note records a trial.
func (s *search) note(k, v int, c Comparison, better bool, why string) {
	t := Trial{
		Knob: k, Value: v, Than: s.current[k], Comparison: c, Better: better, Why: why,
		With: Describe(s.Knobs, s.current.with(k, s.Knobs[k].Start)),
	}
	s.result.Trials = append(s.result.Trials, t)
	fmt.Fprintf(s.Progress, "  %s: USD %s, time %s, %d rounds: %s\n",
		s.Knobs[k].Values[v].Text, c.USD, c.Seconds, c.Rounds, why)
}

func (s *search) unfinished(k int) {
	if name := s.Knobs[k].Name; !slices.Contains(s.result.Unfinished, name) {
		s.result.Unfinished = append(s.result.Unfinished, name)
	}
}

// left is the time that is left.
func (s *search) left() time.Duration {
	return max(s.Time-time.Since(s.began), 0).Round(time.Second)
}

// descend goes through the knobs until nothing gets better.
func (s *search) descend(ctx context.Context, order []int) error {
	for range maxPasses {
		changed := false
		for i, k := range order {
			if s.late() {
				for _, k := range order[i:] {
					s.unfinished(k)
				}
				return errTime
			}
			moved, err := s.climb(ctx, k)
			if err != nil {
				return err
			}
			changed = changed || moved
		}
		if !changed {
			return nil
		}
	}
	return nil
}

// climb moves a knob as long as that is better.
func (s *search) climb(ctx context.Context, k int) (moved bool, err error) {
	tried := map[int]bool{s.current[k]: true}
	for {
		var next []int
		for _, v := range s.candidates(k) {
			if !tried[v] {
				tried[v] = true
				next = append(next, v)
			}
		}
		if len(next) == 0 {
			return moved, nil
		}
		better, err := s.choose(ctx, k, next)
		if err != nil || !better {
			return moved, err
		}
		moved = true
	}
}

// candidates are the neighbours of the current value, and the ends that screening found promising.
func (s *search) candidates(k int) []int {
	at, values := s.current[k], len(s.Knobs[k].Values)
	var out []int
	for _, v := range []int{at - 1, at + 1} {
		if v >= 0 && v < values {
			out = append(out, v)
		}
	}
	for _, t := range s.result.Trials {
		if t.Knob == k && t.Rounds == screeningRounds && s.score(&t.Comparison) < -s.MinGain &&
			!slices.Contains(out, t.Value) {
			out = append(out, t.Value)
		}
	}
	return out
}

// choose compares values of a knob with the current one. The worse half leaves after firstRounds.
// The best one becomes the current value if it is significantly better.
func (s *search) choose(ctx context.Context, k int, values []int) (bool, error) {
	settings := []Setting{s.current}
	for _, v := range values {
		settings = append(settings, s.current.with(k, v))
	}
	fmt.Fprintf(s.Progress, "%s, now %s: %d values, %s left\n", s.Knobs[k].Name,
		s.Knobs[k].Values[s.current[k]].Text, len(values), s.left())
	settings, samples, err := s.feasible(ctx, settings)
	if err != nil {
		return false, err
	}
	for len(settings) > 1 {
		for len(samples[0]) < firstRounds {
			if err := s.race(ctx, settings, samples); err != nil {
				return false, err
			}
		}
		if len(settings) > 2 {
			settings, samples = s.halve(k, settings, samples)
			continue
		}
		if err := s.race(ctx, settings, samples); err != nil {
			return false, err
		}
		c := compare(samples[0], samples[1], s.times, s.Slack)
		v, why := s.verdict(&c)
		if v == unsure && !s.hopeless(&c) && c.Rounds < s.Rounds && !s.late() {
			continue
		}
		s.note(k, settings[1][k], c, v == better, why)
		if v == better {
			s.current, s.times = settings[1], c.times
		}
		return v == better, nil
	}
	return false, nil
}

// halve drops the worse half of the candidates.
func (s *search) halve(
	k int, settings []Setting, samples [][]Sample,
) ([]Setting, [][]Sample) {
	type candidate struct {
		at int
		c  Comparison
	}
	var cs []candidate
	for i := 1; i < len(settings); i++ {
		cs = append(cs, candidate{i, compare(samples[0], samples[i], s.times, s.Slack)})
	}
	slices.SortStableFunc(cs, func(a, b candidate) int {
		return cmp.Compare(s.score(&a.c), s.score(&b.c))
	})
	keep := (len(cs) + 1) / 2
	outSettings, outSamples := settings[:1:1], samples[:1:1]
	for i, c := range cs {
		if i < keep {
			outSettings = append(outSettings, settings[c.at])
			outSamples = append(outSamples, samples[c.at])
			continue
		}
		s.note(k, settings[c.at][k], c.c, false, "another value was better after two rounds")
	}
	return outSettings, outSamples
}

// finish compares the result with the start in new rounds, and decides.
func (s *search) finish(ctx context.Context) error {
	r := s.result
	start := s.start()
	settings := []Setting{start, s.current}
	changed := len(Flags(s.Knobs, s.current)) > 0
	if !changed {
		settings = settings[:1]
	}
	fmt.Fprintf(s.Progress, "comparing the result with the start: %d rounds, %s left\n",
		finalRounds, s.left())
	samples := make([][]Sample, len(settings))
	s.round = finalRound
	for i := range finalRounds {
		if i > 2 && s.left() == 0 {
			break
		}
		if err := s.race(ctx, settings, samples); err != nil {
			return err
		}
	}
	r.Setting, r.Start = start, average(samples[0])
	r.End = r.Start
	if !changed {
		r.FinalWhy = "nothing was significantly better than the start"
		return nil
	}
	r.Final = compare(samples[0], samples[1], map[string]float64{}, s.Slack)
	v, why := s.verdict(&r.Final)
	r.FinalWhy = why
	if v == better {
		r.Setting, r.End = s.current, average(samples[1])
	}
	return nil
}

// average returns the means of samples.
func average(samples []Sample) Sample {
	out := Sample{Load: map[string]Figures{}}
	n := float64(len(samples))
	for _, s := range samples {
		out.PeakBytes = max(out.PeakBytes, s.PeakBytes)
		for name, f := range s.Load {
			sum := out.Load[name]
			sum.Weight, sum.Budgeted = f.Weight, f.Budgeted
			sum.USD += f.USD / n
			sum.Seconds += f.Seconds / n
			sum.Over += f.Over / n
			sum.Reads += f.Reads / n
			sum.Bytes += f.Bytes / n
			sum.Trips += f.Trips / n
			sum.CPUSeconds += f.CPUSeconds / n
			out.Load[name] = sum
		}
	}
	return out
}
