package quantile

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// timeBuckets is the number of buckets: in microseconds, four for each doubling, up to 19 h.
	timeBuckets = 37 * 4
	// The counts are halved after memory durations, or after halfLife if enough remain, because old
	// durations say little about the present.
	memory   = 2048
	halfLife = time.Minute
	// relearnEvery is the number of durations after which the quantile is computed again.
	relearnEvery = 32
)

// Decaying estimates a quantile of recent durations. It is safe for concurrent use. New makes one.
type Decaying struct {
	quantile   float64
	minSamples int64

	value atomic.Int64 // in nanoseconds, 0 before minSamples durations

	counts [timeBuckets]atomic.Int64
	seen   atomic.Int64

	learning sync.Mutex
	halved   time.Time // guarded by learning
}

// New returns an estimator of the quantile q, between 0 and 1. It has no estimate before minSamples
// durations were observed.
func New(q float64, minSamples int) *Decaying {
	return &Decaying{quantile: q, minSamples: int64(minSamples), halved: time.Now()}
}

// Value returns the quantile, at most a fifth too large. It is 0 before minSamples durations were
// observed.
func (d *Decaying) Value() time.Duration { return time.Duration(d.value.Load()) }

// Observe counts one duration.
func (d *Decaying) Observe(v time.Duration) {
	d.counts[bucketOf(v)].Add(1)
	n := d.seen.Add(1)
	if (n%relearnEvery == 0 || n == d.minSamples) && d.learning.TryLock() {
		d.learn(time.Now())
		d.learning.Unlock()
	}
}

// learn computes the quantile and forgets old durations. The counts may change while it runs, which
// is accepted because the result is an estimate.
func (d *Decaying) learn(now time.Time) {
	var counts [timeBuckets]int64
	var total int64
	for i := range counts {
		counts[i] = d.counts[i].Load()
		total += counts[i]
	}
	if total < d.minSamples {
		return
	}
	below, want := int64(0), int64(float64(total)*d.quantile)
	for i, n := range counts {
		if below += n; below > want || i == timeBuckets-1 {
			d.value.Store(int64(upperBound(i)))
			break
		}
	}
	if total >= memory || (now.Sub(d.halved) >= halfLife && total >= 2*d.minSamples) {
		// Odd counts are rounded up and down in turns. If all were rounded up, a bucket's last
		// duration would never be forgotten.
		odd := int64(0)
		for i, n := range counts {
			odd += n % 2
			d.counts[i].Add(-n/2 - odd/2)
			odd %= 2
		}
		d.halved = now
	}
}

// bucketOf returns the bucket of a duration: the position of its highest bit and the two bits
// below.
func bucketOf(v time.Duration) int {
	us := uint64(max(v.Microseconds(), 4))
	top := bits.Len64(us) - 1
	return min(top*4+int(us>>(top-2)&3), timeBuckets-1)
}

// upperBound returns the upper end of a bucket.
func upperBound(i int) time.Duration {
	top, part := i/4, i%4
	if top < 2 {
		return 4 * time.Microsecond
	}
	return time.Duration(5+part) << (top - 2) * time.Microsecond
}
