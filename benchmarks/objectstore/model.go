package objectstore

import (
	"math"
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"

	"larder/internal/faultstore"
)

// Model is how an object store behaves. The zero value answers at once.
type Model struct {
	// FirstByte is the median time until an answer begins. 0 = none.
	FirstByte time.Duration
	// Spread is the standard deviation of the logarithm of the time to the first byte, which is
	// log-normal. 0 = every answer takes FirstByte. 0.5 puts the 99th percentile at 3.2 times the
	// median, 1 at 10 times.
	Spread float64
	// BytesPerSecond is the bandwidth of the body of one answer. 0 = not limited.
	BytesPerSecond int64
	// Errors is the share of the calls that fail with HTTP 500. 0 = none.
	Errors float64
	// MaxRate is the number of calls in a second above which calls fail with HTTP 503 SlowDown.
	// 0 = no limit.
	MaxRate float64
	// Seed determines times and errors.
	Seed uint64
}

// chance draws what the model leaves to chance.
type chance struct {
	model Model
	rand  *rand.Rand
	calls *rate.Limiter // nil without MaxRate
}

func newChance(m Model) chance {
	c := chance{model: m, rand: rand.New(rand.NewPCG(m.Seed, 0x6f626a))}
	if m.MaxRate > 0 {
		c.calls = rate.NewLimiter(rate.Limit(m.MaxRate), int(math.Ceil(m.MaxRate)))
	}
	return c
}

// call draws the time to the first byte of a call, and its error.
func (c *chance) call(name string) (time.Duration, error) {
	d := c.model.FirstByte
	if d > 0 && c.model.Spread > 0 {
		d = time.Duration(float64(d) * math.Exp(c.model.Spread*c.rand.NormFloat64()))
	}
	kind := faultstore.Kind(0)
	if c.model.Errors > 0 && c.rand.Float64() < c.model.Errors {
		kind = faultstore.ServerError
	}
	if c.calls != nil && !c.calls.Allow() {
		kind = faultstore.SlowDown
	}
	if err, failed := kind.Response(name); failed {
		return d, err
	}
	return d, nil
}
