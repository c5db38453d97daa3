package s3server

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

// Latency is what a healthy bucket takes.
type Latency struct {
	// FirstByte passes before an answer begins: its median.
	FirstByte time.Duration
	// Spread is the standard deviation of the logarithm of that: log-normal. 0: every answer takes
	// FirstByte. 0.5 puts the 99th percentile at 3.2 times the median, 1 at 10 times.
	Spread float64
	// BytesPerSecond is what one answer's body gets; 0: what the machine can.
	BytesPerSecond int64
	// Seed is of the spread.
	Seed uint64
}

func (l Latency) firstByte(r *rand.Rand) time.Duration {
	if l.FirstByte <= 0 || l.Spread <= 0 {
		return max(l.FirstByte, 0)
	}
	return time.Duration(float64(l.FirstByte) * math.Exp(l.Spread*r.NormFloat64()))
}

// after is when n bytes of a body have passed.
func (l Latency) after(n int64) time.Duration {
	if l.BytesPerSecond <= 0 {
		return 0
	}
	return time.Duration(float64(n) / float64(l.BytesPerSecond) * float64(time.Second))
}

// pause waits; false: the context ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
