package hedge

import (
	"time"

	"larder/internal/quantile"
)

// class learns how long the first bytes of reads of one size take.
type class struct {
	name     string
	minDelay time.Duration
	times    *quantile.Decaying
}

func newClass(name string, o Options) *class {
	return &class{name: name, minDelay: o.MinDelay, times: quantile.New(o.Quantile, o.MinSamples)}
}

// delay returns the time after which a read is late, 0 while too little is known.
func (c *class) delay() time.Duration {
	if late := c.times.Value(); late > 0 {
		return max(late, c.minDelay)
	}
	return 0
}

// observe counts one first byte. That of a request which was cancelled because
// it was late must be counted with the time it had waited: that is enough to
// know on which side of the quantile it lies, and to leave it out would make the
// bucket look faster the more is hedged.
func (c *class) observe(d time.Duration) { c.times.Observe(d) }
