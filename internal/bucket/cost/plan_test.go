package cost

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const unit = 8 << 10

// randomNeed returns up to n needed ranges of whole units, and the size of their object.
func randomNeed(rng *rand.Rand, n int) []Extent {
	var need []Extent
	at := rng.Int64N(10) * unit
	longest := int64(1) << rng.IntN(8)
	gap := int64(1) << rng.IntN(8)
	for range 1 + rng.IntN(n) {
		end := at + (1+rng.Int64N(longest))*unit
		need = append(need, Extent{at, end})
		at = end + (1+rng.Int64N(gap))*unit
	}
	if rng.IntN(4) == 0 { // the end of the object
		need[len(need)-1].End -= rng.Int64N(unit)
	}
	return need
}

func randomModel(rng *rand.Rand) Model {
	m := Model{
		FirstByte:      time.Duration(1+rng.Int64N(100)) * time.Millisecond,
		BytesPerSecond: 1e6 * float64(5+rng.IntN(500)),
		PerRequest:     time.Duration(rng.Int64N(int64(2 * time.Millisecond))),
	}
	if rng.IntN(8) == 0 {
		m.PerRequest = -1
	}
	m.MaxAlong = -1
	return m
}

// joinAll joins every gap up to the model's largest, from left to right.
func joinAll(m Model, need []Extent) []Extent {
	m = m.withDefaults()
	var out []Extent
	for _, e := range cut(adjoin(need), m.MaxRead, unit) {
		if n := len(out) - 1; n >= 0 && e.Off-out[n].End <= m.MaxGap &&
			e.End-out[n].Off <= m.MaxRead {
			out[n].End = e.End
			continue
		}
		out = append(out, e)
	}
	return out
}

// joinQuarter joins gaps, smallest first, until a quarter more than needed is read: the rule that
// the model replaced.
func joinQuarter(m Model, need []Extent) []Extent {
	m = m.withDefaults()
	out := cut(adjoin(need), m.MaxRead, unit)
	spare := int64(0)
	for _, e := range out {
		spare += e.Len() / 4
	}
	var gaps []Extent
	for i, e := range out[1:] {
		gaps = append(gaps, Extent{out[i].End, e.Off})
	}
	slices.SortStableFunc(gaps, func(a, b Extent) int { return cmp.Compare(a.Len(), b.Len()) })
	for _, g := range gaps {
		i := slices.IndexFunc(out, func(e Extent) bool { return e.End == g.Off })
		if g.Len() == 0 || g.Len() > min(spare, m.MaxGap) || out[i+1].End-out[i].Off > m.MaxRead {
			continue
		}
		spare -= g.Len()
		out[i].End = out[i+1].End
		out = slices.Delete(out, i+1, i+2)
	}
	return out
}

// check fails the test unless reads cover the needed ranges as Plan promises.
func check(t *testing.T, m Model, need, reads []Extent) {
	t.Helper()
	m = m.withDefaults()
	at, read := 0, int64(0)
	rest := slices.Clone(need)
	for i, r := range reads {
		if r.Len() <= 0 || r.Len() > m.MaxRead || i > 0 && r.Off < reads[i-1].End {
			t.Fatalf("%+v: reads %v of %v", m, reads, need)
		}
		if at == len(rest) || rest[at].Off != r.Off {
			t.Fatalf("%+v: a read begins without need: %v of %v", m, reads, need)
		}
		for end := r.Off; at < len(rest) && rest[at].Off < r.End; {
			if rest[at].Off-end > m.MaxGap {
				t.Fatalf("%+v: a gap is too large: %v of %v", m, reads, need)
			}
			end = min(rest[at].End, r.End)
			if rest[at].Off = end; rest[at].End > r.End {
				break
			}
			at++
			if end == r.End {
				break
			}
		}
		read += r.Len()
	}
	if at != len(rest) {
		t.Fatalf("%+v: not all is read: %v of %v", m, reads, need)
	}
	all := int64(0)
	for i, e := range need {
		if all += e.Len(); i > 0 && e.Off-need[i-1].End <= m.MaxGap {
			all += e.Off - need[i-1].End
		}
	}
	if read > all {
		t.Fatalf("%+v: %d bytes are read, all gaps are %d: %v of %v", m, read, all, reads, need)
	}
}

// TestPlanIsTheCheapest: a plan costs at most what the simple rules cost, reads what is needed, and
// is the same each time.
func TestPlanIsTheCheapest(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	cheaper := 0
	for range 2000 {
		m, need := randomModel(rng), randomNeed(rng, 300)
		before := slices.Clone(need)
		reads := m.Plan(need, unit)
		if !slices.Equal(need, before) {
			t.Fatal("Plan changed the needed ranges")
		}
		check(t, m, need, reads)
		if again := m.Plan(need, unit); !slices.Equal(again, reads) {
			t.Fatalf("%+v: plans differ: %v and %v", m, reads, again)
		}
		got := m.Cost(reads)
		for name, other := range map[string][]Extent{
			"join nothing":    cut(adjoin(need), m.withDefaults().MaxRead, unit),
			"join all gaps":   joinAll(m, need),
			"a quarter spare": joinQuarter(m, need),
		} {
			if c := m.Cost(other); got > c+time.Microsecond {
				t.Fatalf("%+v: %v costs %v, and %q %v: %v", m, reads, got, name, c, other)
			} else if got < c {
				cheaper++
			}
		}
	}
	if cheaper < 2000 {
		t.Errorf("the plan was cheaper only %d times", cheaper)
	}
}

// TestPlanIsExact compares plans with the best of all ways to join the ranges.
func TestPlanIsExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		m, need := randomModel(rng), randomNeed(rng, 9)
		d := m.withDefaults()
		best := time.Duration(1<<63 - 1)
		for joins := range 1 << (len(need) - 1) {
			reads := []Extent{need[0]}
			for i, e := range need[1:] {
				last := &reads[len(reads)-1]
				if joins>>i&1 == 0 {
					reads = append(reads, e)
				} else if last.End = e.End; e.Off-need[i].End > d.MaxGap || last.Len() > d.MaxRead {
					reads = nil
					break
				}
			}
			if reads != nil {
				best = min(best, m.Cost(reads))
			}
		}
		// Bounds are whole units, and the end of the object is not.
		within := time.Duration(d.transfer(unit))
		if got := m.Cost(m.Plan(need, unit)); got > best+within {
			t.Fatalf("%+v: a plan of %v costs %v, the best one %v", m, need, got, best)
		}
	}
}

// TestPlansOfKnownNeeds shows what the defaults decide.
func TestPlansOfKnownNeeds(t *testing.T) {
	every := func(n int, gap int64) []Extent {
		var need []Extent
		for i := range int64(n) {
			need = append(need, Extent{i * (gap + unit), i*(gap+unit) + unit})
		}
		return need
	}
	for name, c := range map[string]struct {
		need  []Extent
		model Model
		reads int
		bytes int64
	}{
		"nothing":                      {},
		"one range":                    {need: []Extent{{0, 1 << 20}}, reads: 1, bytes: 1 << 20},
		"a long range is split":        {need: []Extent{{0, 8 << 20}}, reads: 5, bytes: 8 << 20},
		"a range above the bound":      {need: []Extent{{0, 20 << 20}}, reads: 12, bytes: 20 << 20},
		"small gaps are joined":        {need: every(100, 8<<10), reads: 5, bytes: 1597440},
		"gaps of 64 KiB":               {need: every(100, 64<<10), reads: 10, bytes: 6717440},
		"a few gaps of 256 KiB":        {need: every(100, 256<<10), reads: 60, bytes: 11304960},
		"many gaps of 440 KiB":         {need: every(100, 440<<10), reads: 77, bytes: 11182080},
		"gaps of 520 KiB are left out": {need: every(100, 520<<10), reads: 100, bytes: 819200},
		"requests are free": {
			need: every(100, 8<<10), model: Model{PerRequest: -1}, reads: 100, bytes: 819200,
		},
		"requests are dear": {
			need: every(100, 64<<10), model: Model{PerRequest: 5 * time.Millisecond}, reads: 4,
			bytes: 7110656,
		},
		"the bucket is near": {
			need: every(100, 64<<10), reads: 100, bytes: 819200,
			model: Model{
				FirstByte: 40 * time.Microsecond, BytesPerSecond: 1.28e9,
				PerRequest: 40 * time.Microsecond,
			},
		},
	} {
		reads, bytes := c.model.Plan(c.need, unit), int64(0)
		for _, r := range reads {
			bytes += r.Len()
		}
		if len(reads) != c.reads || bytes != c.bytes {
			t.Errorf("%s: %d reads, %d bytes, %v; want %d and %d", name, len(reads), bytes,
				c.model.Cost(reads), c.reads, c.bytes)
		}
	}
}

// TestPlanKeepsMaxAlong: a bound on the gaps is kept, and a plan is no worse than one that joins
// nothing.
func TestPlanKeepsMaxAlong(t *testing.T) {
	along := func(need, reads []Extent) (n int64) {
		for _, r := range reads {
			n += r.Len()
		}
		for _, e := range need {
			n -= e.Len()
		}
		return n
	}
	rng := rand.New(rand.NewPCG(7, 8))
	bound, joined := 0, 0
	for range 2000 {
		m, need := randomModel(rng), randomNeed(rng, 300)
		free := m.Plan(need, unit)
		m.MaxAlong = 1 + rng.Int64N(max(along(need, free), 1))
		reads := m.Plan(need, unit)
		check(t, m, need, reads)
		n := along(need, reads)
		if n > m.MaxAlong {
			t.Fatalf("%+v: gaps of %d bytes are read: %v of %v", m, n, reads, need)
		}
		apart := cut(adjoin(need), m.withDefaults().MaxRead, unit)
		if got, most := m.Cost(reads), m.Cost(apart); got > most+time.Microsecond {
			t.Fatalf("%+v: %v costs %v, reading no gaps %v: %v", m, reads, got, most, need)
		}
		if len(reads) > len(free) {
			bound++
			if n > 0 {
				joined++
			}
		}
	}
	if bound < 500 || joined < bound/2 {
		t.Errorf("the bound changed %d plans, of which %d join ranges", bound, joined)
	}
}
