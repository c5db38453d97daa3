package hedge

import (
	"time"

	"larder/internal/quantile"
)

// class learns how long the first bytes of reads of one size class take.
type class struct {
	name     string
	minDelay time.Duration
	budget   func() time.Duration
	times    *quantile.Decaying
}

func newClass(name string, o Options) *class {
	return &class{
		name: name, minDelay: o.MinDelay, budget: o.ReadBudget,
		times: quantile.New(o.Quantile, o.MinSamples),
	}
}

// delay returns the time after which a read is late: its budget, but not before the quantile,
// because hedges are for the slowest reads. It is 0, not known, without a budget and before enough
// first bytes were seen.
func (c *class) delay() time.Duration {
	budget, late := c.budget(), c.times.Value()
	if budget <= 0 && late <= 0 {
		return 0
	}
	return max(budget, late, c.minDelay)
}

// observe counts one first byte. A request that was cancelled because it was late counts with the
// time that it had waited, which shows on which side of the quantile it lies. Without these, the
// bucket would look faster the more reads are hedged.
func (c *class) observe(d time.Duration) { c.times.Observe(d) }
