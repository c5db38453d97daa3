package tune

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// world is a gateway whose costs are known. Each run takes ten seconds.
type world struct {
	// usd and seconds multiply the costs of a request, by knob and value. nil: no effect.
	usd, seconds [][]float64
	// budget of a request in seconds; 0: none.
	budget float64
	noise  float64 // the standard deviation of the logarithm of a figure
	seed   uint64
	// cannot has the values that cannot run.
	cannot map[[2]int]bool
	// peak multiplies 100 bytes, by knob and value.
	peak map[[2]int]float64
	runs map[uint64]int // by round
}

// knobs are two flags and a constant of five values each, which start in the middle.
func knobs() []Knob {
	var out []Knob
	for _, name := range []string{"--a", "--b", "c"} {
		k := Knob{Name: name, Start: 2, Constant: name == "c"}
		for _, v := range []string{"1", "2", "3", "4", "5"} {
			k.Values = append(k.Values, Value{Text: v, Flags: []string{name + "=" + v}})
		}
		out = append(out, k)
	}
	return out
}

func (w *world) measure(_ context.Context, s Setting, round uint64) (Sample, error) {
	time.Sleep(10 * time.Second)
	if w.runs == nil {
		w.runs = map[uint64]int{}
	}
	w.runs[round]++
	r := rand.New(rand.NewPCG(w.seed+round, uint64(w.runs[round])))
	// Rounds differ much more than settings within a round.
	same := rand.New(rand.NewPCG(w.seed, round))
	usd, seconds, peak := 1+same.Float64(), 0.1+same.Float64()/10, 100.0
	for k, v := range s {
		if w.cannot[[2]int{k, v}] {
			return Sample{}, ErrInfeasible
		}
		if f, ok := w.peak[[2]int{k, v}]; ok {
			peak *= f
		}
		if k < len(w.usd) && w.usd[k] != nil {
			usd *= w.usd[k][v]
		}
		if k < len(w.seconds) && w.seconds[k] != nil {
			seconds *= w.seconds[k][v]
		}
	}
	noisy := func(v float64) float64 { return v * math.Exp(w.noise*r.NormFloat64()) }
	f := Figures{Weight: 1, USD: noisy(usd), Seconds: noisy(seconds)}
	if w.budget > 0 {
		f.Budgeted, f.Over = true, max(math.Log(f.Seconds/w.budget), 0)
	}
	return Sample{Load: map[string]Figures{"load": f}, PeakBytes: peak}, nil
}

// run searches in virtual time.
func run(t *testing.T, w *world, change func(*Options)) (r *Result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o := Options{Knobs: knobs(), Measure: w.measure, Time: time.Hour}
		if change != nil {
			change(&o)
		}
		var err error
		if r, err = Run(t.Context(), o); err != nil {
			t.Error(err)
		}
		if r.Took > o.Time+time.Minute {
			t.Errorf("the search took %s of %s", r.Took, o.Time)
		}
	})
	return r
}

// TestFindsTheCheapest: one flag is cheapest at its end, two steps away, and the other one has no
// effect. Noise is as large as half a step.
func TestFindsTheCheapest(t *testing.T) {
	w := &world{usd: [][]float64{{1.3, 1.1, 1, 0.9, 0.8}}, noise: 0.03}
	r := run(t, w, nil)
	if want := (Setting{4, 2, 2}); !slices.Equal(r.Setting, want) {
		t.Errorf("found %v, want %v: %s", r.Setting, want, r.FinalWhy)
	}
	if c := r.Final.USD; c.High >= 1 || c.Mean < 0.7 || c.Mean > 0.9 {
		t.Errorf("the result costs %s of the start, want about 0.8", c)
	}
	if got := Flags(knobs(), r.Setting); !slices.Equal(got, []string{"--a=5"}) {
		t.Errorf("flags %v", got)
	}
}

// TestNothingIsBetter: settings differ by chance only. A search must not take luck for a result.
func TestNothingIsBetter(t *testing.T) {
	found := 0
	for seed := range uint64(100) {
		w := &world{noise: 0.05, seed: seed << 32}
		if r := run(t, w, nil); !slices.Equal(r.Setting, Setting{2, 2, 2}) {
			found++
		}
	}
	if found > 2 {
		t.Errorf("%d of 100 searches found something better in noise", found)
	}
}

// TestTime: without a budget a setting may be cheaper only if it is not much slower.
func TestTime(t *testing.T) {
	w := &world{
		usd:     [][]float64{{1, 1, 1, 0.9, 0.8}},
		seconds: [][]float64{{1, 1, 1, 1.05, 1.3}},
	}
	if r := run(t, w, nil); !slices.Equal(r.Setting, Setting{3, 2, 2}) {
		t.Errorf("found %v, want the cheapest of those within a tenth", r.Setting)
	}
	w = &world{seconds: [][]float64{{1, 1, 1, 0.9, 0.7}}, noise: 0.01}
	if r := run(t, w, nil); !slices.Equal(r.Setting, Setting{4, 2, 2}) {
		t.Errorf("found %v, want the fastest of those that cost the same", r.Setting)
	}
}

// TestBudgets: a setting that keeps the budget is better than a cheaper one that does not. Of those
// that keep it, the cheapest is, however slow.
func TestBudgets(t *testing.T) {
	w := &world{
		usd:     [][]float64{{1.4, 1.2, 1, 0.9, 0.8}},
		seconds: [][]float64{{0.3, 0.5, 1, 2, 4}},
		budget:  0.1, // with 1, requests take from 0.1 to 0.2
	}
	if r := run(t, w, nil); !slices.Equal(r.Setting, Setting{1, 2, 2}) {
		t.Errorf("found %v, want the cheapest that keeps the budget", r.Setting)
	}
	w.budget = 10
	if r := run(t, w, nil); !slices.Equal(r.Setting, Setting{4, 2, 2}) {
		t.Errorf("found %v, want the cheapest", r.Setting)
	}
}

// TestCeilings: values that cannot run or need too much memory are not chosen.
func TestCeilings(t *testing.T) {
	w := &world{
		usd:    [][]float64{{1, 1, 1, 0.9, 0.8}, {1, 1, 1, 0.9, 0.8}},
		cannot: map[[2]int]bool{{0, 4}: true},
		peak:   map[[2]int]float64{{1, 4}: 3},
	}
	r := run(t, w, func(o *Options) { o.MemoryBytes = 250 })
	if !slices.Equal(r.Setting, Setting{3, 3, 2}) {
		t.Errorf("found %v, want the best that is possible", r.Setting)
	}
}

// TestConstants: a constant is measured and never changed.
func TestConstants(t *testing.T) {
	w := &world{usd: [][]float64{nil, nil, {0.5, 1, 1, 1, 1}}}
	r := run(t, w, nil)
	if !slices.Equal(r.Setting, Setting{2, 2, 2}) || len(Flags(knobs(), Setting{2, 2, 0})) > 0 {
		t.Errorf("a constant was changed: %v", r.Setting)
	}
	if i := slices.IndexFunc(r.Trials, func(t Trial) bool {
		return t.Knob == 2 && t.Value == 0 && t.Promising
	}); i < 0 {
		t.Errorf("its better value is not among the trials: %+v", r.Trials)
	}
}

// TestTimeLimit: a short search ends in time, and names what it did not measure.
func TestTimeLimit(t *testing.T) {
	w := &world{usd: [][]float64{{0.7, 0.8, 1, 1, 1}, {0.7, 0.8, 1, 1, 1}}}
	r := run(t, w, func(o *Options) { o.Time = 2 * time.Minute })
	if !slices.Contains(r.Unfinished, "--b") || len(r.Start.Load) == 0 {
		t.Errorf("not measured: %v, start %+v", r.Unfinished, r.Start)
	}
	failing := errors.New("the bucket is gone")
	synctest.Test(t, func(t *testing.T) {
		w := &world{usd: [][]float64{{0.7, 0.8, 1, 1, 1}}}
		r, err := Run(t.Context(), Options{
			Knobs: knobs(),
			Measure: func(ctx context.Context, s Setting, round uint64) (Sample, error) {
				if round >= finalRound {
					return Sample{}, failing
				}
				return w.measure(ctx, s, round)
			},
		})
		if !errors.Is(err, failing) || r.Setting != nil ||
			!slices.Equal(r.Found, Setting{0, 2, 2}) {
			t.Errorf("a search that is not certain: %+v, %v", r, err)
		}
	})
}

// TestNoReads: a round in which a setting reads nothing is the best there can be, and counts.
func TestNoReads(t *testing.T) {
	sample := func(reads float64) Sample {
		return Sample{Load: map[string]Figures{"a": {Weight: 1, Reads: reads, USD: 1}}}
	}
	a := []Sample{sample(4), sample(5)}
	c := compare(a, []Sample{sample(0), sample(0)}, nil, DefaultSlack)
	if c.Reads.Mean > 0.01 || !c.Reads.below(DefaultMinGain) {
		t.Errorf("no reads instead of some: %s", c.Reads)
	}
	if c := compare([]Sample{sample(0)}, []Sample{sample(0)}, nil, 0); c.Reads.Mean != 1 {
		t.Errorf("no reads in both: %s", c.Reads)
	}
	if c := compare([]Sample{sample(0)}, []Sample{sample(4)}, nil, 0); c.Reads.Mean < 100 {
		t.Errorf("some reads instead of none: %s", c.Reads)
	}
}
