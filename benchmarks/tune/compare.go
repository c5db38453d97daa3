package tune

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// Ratio is a quotient B : A with its 95 % confidence interval. It is the geometric mean of the
// quotients of the rounds.
type Ratio struct {
	Mean, Low, High float64
}

// below reports whether the quotient is certainly below 1, by at least gain.
func (r Ratio) below(gain float64) bool { return r.High < 1 && r.Mean <= 1-gain }

// above reports whether the quotient is certainly above 1, by at least gain.
func (r Ratio) above(gain float64) bool { return r.Low > 1 && r.Mean >= 1+gain }

// interval is the mean of differences with its 95 % confidence interval.
type interval struct{ mean, low, high float64 }

// student returns the quantile 0.975 of Student's t distribution.
func student(freedom int) float64 {
	table := [...]float64{
		math.Inf(1), 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201,
		2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
	}
	if freedom < len(table) {
		return table[max(freedom, 0)]
	}
	return 2.086 // a little too wide
}

// mean returns the mean of differences. One difference says nothing about its error.
func mean(ds []float64) interval {
	n := float64(len(ds))
	sum, squares := 0.0, 0.0
	for _, d := range ds {
		sum += d
	}
	m := sum / n
	for _, d := range ds {
		squares += (d - m) * (d - m)
	}
	if len(ds) < 2 {
		return interval{m, math.Inf(-1), math.Inf(1)}
	}
	e := student(len(ds)-1) * math.Sqrt(squares/(n-1)/n)
	return interval{m, m - e, m + e}
}

// Comparison compares a setting B with a setting A in rounds that both ran.
type Comparison struct {
	Rounds int
	// USD, Seconds, Reads, Bytes and CPU are quotients B : A of the whole load. Seconds is the
	// geometric mean over the scenarios, so that a short one counts as much as a long one.
	USD, Seconds, Reads, Bytes, CPU Ratio
	// Over is the difference of the overruns B - A: the logarithm of how much more time B takes
	// beyond the budgets.
	Over, OverLow, OverHigh float64
	// Slow names the scenarios without a budget in which B takes longer than is permitted, Doubtful
	// those in which it seems to.
	Slow, Doubtful []string
	// Peak is the largest resident set of B, in bytes.
	Peak float64

	times map[string]float64 // by scenario: the logarithm of the mean quotient of the times
}

// least is the least quotient of a figure, so that a setting without any reads has one.
const least = 0.001

// negligible is the difference of times that does not count, in seconds.
const negligible = 0.001

// compare compares samples of the same rounds. before are the logarithms of the quotients of the
// times of a and the start.
func compare(a, b []Sample, before map[string]float64, slack float64) Comparison {
	c := Comparison{Rounds: len(b), times: map[string]float64{}}
	ratio := func(of func(Figures) float64) Ratio {
		floor := 0.0
		for i := range b {
			floor = max(floor, least*a[i].sum(of), least*b[i].sum(of))
		}
		if floor == 0 {
			return Ratio{1, 1, 1} // neither has any
		}
		var ds []float64
		for i := range b {
			ds = append(ds, math.Log(max(b[i].sum(of), floor)/max(a[i].sum(of), floor)))
		}
		m := mean(ds)
		return Ratio{math.Exp(m.mean), math.Exp(m.low), math.Exp(m.high)}
	}
	c.USD = ratio(func(f Figures) float64 { return f.USD })
	c.Reads = ratio(func(f Figures) float64 { return f.Reads })
	c.Bytes = ratio(func(f Figures) float64 { return f.Bytes })
	c.CPU = ratio(func(f Figures) float64 { return f.CPUSeconds })
	var over, seconds []float64
	for i := range b {
		over = append(over, b[i].over()-a[i].over())
		d := 0.0
		for name, f := range b[i].Load {
			d += quotient(a[i].Load[name].Seconds, f.Seconds)
		}
		seconds = append(seconds, d/float64(max(len(b[i].Load), 1)))
		c.Peak = max(c.Peak, b[i].PeakBytes)
	}
	m := mean(over)
	c.Over, c.OverLow, c.OverHigh = m.mean, m.low, m.high
	m = mean(seconds)
	c.Seconds = Ratio{math.Exp(m.mean), math.Exp(m.low), math.Exp(m.high)}
	if len(b) > 0 {
		for _, name := range slices.Sorted(maps.Keys(b[0].Load)) {
			var ds []float64
			for i := range b {
				ds = append(ds, quotient(a[i].Load[name].Seconds, b[i].Load[name].Seconds))
			}
			m := mean(ds)
			c.times[name] = m.mean + before[name]
			switch {
			case b[0].Load[name].Budgeted || c.times[name] <= math.Log(1+slack):
			case m.low > 0:
				c.Slow = append(c.Slow, name)
			default:
				c.Doubtful = append(c.Doubtful, name)
			}
		}
	}
	return c
}

// quotient is the logarithm of b : a, towards 0 for times that are short.
func quotient(a, b float64) float64 { return math.Log((b + negligible) / (a + negligible)) }

// overGain is a change of the overruns that counts: five percent of a budget.
const overGain = 0.05

// verdict is what a comparison says about B.
type verdict int

const (
	unsure verdict = iota // more rounds may tell
	better
	worse
)

// verdict says whether B is better than A, with a reason.
func (o *Options) verdict(c *Comparison) (verdict, string) {
	switch {
	case o.tooLarge(c):
		return worse, "exceeds the memory ceiling"
	case c.OverHigh < 0 && c.Over <= -overGain:
		return better, "overruns budgets less"
	case c.OverLow > 0 && c.Over >= overGain:
		return worse, "overruns budgets more"
	case math.Abs(c.Over) >= overGain:
		return unsure, "overruns of budgets differ, not significantly"
	case len(c.Slow) > 0:
		return worse, "slower: " + c.Slow[0]
	case len(c.Doubtful) > 0:
		return unsure, "perhaps slower: " + c.Doubtful[0]
	case c.USD.below(o.MinGain):
		return better, "cheaper"
	case c.USD.above(o.MinGain):
		return worse, "more expensive"
	case c.Seconds.below(o.minFaster()) && c.USD.High < 1+o.MinGain:
		return better, "as cheap, and faster"
	case c.Seconds.above(o.MinGain):
		return worse, "slower"
	}
	return unsure, "no significant difference"
}

func (o *Options) tooLarge(c *Comparison) bool {
	return o.MemoryBytes > 0 && c.Peak > o.MemoryBytes
}

// minFaster is how much sooner a setting must answer that is not cheaper. Times are noisier than
// dollars.
func (o *Options) minFaster() float64 { return 2 * o.MinGain }

// hopeless reports whether more rounds cannot make B better: the interval excludes a gain.
func (o *Options) hopeless(c *Comparison) bool {
	return c.OverLow > -overGain && c.USD.Low > 1-o.MinGain && c.Seconds.Low > 1-o.minFaster()
}

// score orders candidates, the best one first: overruns, then dollars, then time.
func (o *Options) score(c *Comparison) float64 {
	s := 10*c.Over + math.Log(c.USD.Mean) + 0.1*math.Log(c.Seconds.Mean) + float64(len(c.Slow))
	if o.tooLarge(c) {
		s += 100
	}
	return s
}

func (r Ratio) String() string { return fmt.Sprintf("%.3f (%.3f-%.3f)", r.Mean, r.Low, r.High) }
