package hedge

import (
	"time"

	"larder/internal/quantile"
)

// class learns how long the first bytes of reads of one size class take.
type class struct {
	name     string
	minDelay time.Duration
	times    *quantile.Decaying
}

func newClass(name string, o Options) *class {
	return &class{name: name, minDelay: o.MinDelay, times: quantile.New(o.Quantile, o.MinSamples)}
}

// delay returns the time after which a read is late. It is 0 before enough first bytes were seen.
func (c *class) delay() time.Duration {
	if late := c.times.Value(); late > 0 {
		return max(late, c.minDelay)
	}
	return 0
}

// observe counts one first byte. A request that was cancelled because it was late counts with the
// time that it had waited, which shows on which side of the quantile it lies. Without these, the
// bucket would look faster the more reads are hedged.
func (c *class) observe(d time.Duration) { c.times.Observe(d) }
