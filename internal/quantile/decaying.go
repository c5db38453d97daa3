package quantile

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Times are counted in microseconds, four buckets to a doubling, up to 19 h.
	timeBuckets = 37 * 4
	// Half of what is known is forgotten when this many durations were seen, or
	// after a minute while enough remains to go by: what was slow an hour ago
	// says little about now.
	memory   = 2048
	halfLife = time.Minute
	// relearnEvery is how many durations pass before the quantile is worked out
	// anew.
	relearnEvery = 32
)

// Decaying estimates a quantile of durations. It is safe for concurrent use;
// make it with New.
type Decaying struct {
	quantile   float64
	minSamples int64

	value atomic.Int64 // in nanoseconds, 0 while too little is known

	counts [timeBuckets]atomic.Int64
	seen   atomic.Int64

	learning sync.Mutex
	halved   time.Time // guarded by learning
}

// New returns an estimate of the quantile q, between 0 and 1, that says nothing
// before minSamples durations were observed.
func New(q float64, minSamples int) *Decaying {
	return &Decaying{quantile: q, minSamples: int64(minSamples), halved: time.Now()}
}

// Value returns the quantile, at most a fifth too large; 0 while too little is
// known.
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

// learn works out the quantile, and forgets. The counts may move meanwhile: it
// is an estimate.
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
		// Odd ones lose the odd one in turns: were it kept everywhere, what is in
		// a bucket alone would never be forgotten.
		odd := int64(0)
		for i, n := range counts {
			odd += n % 2
			d.counts[i].Add(-n/2 - odd/2)
			odd %= 2
		}
		d.halved = now
	}
}

// bucketOf returns the bucket of a time: the position of its highest bit and the
// two bits below it.
func bucketOf(v time.Duration) int {
	us := uint64(max(v.Microseconds(), 4))
	top := bits.Len64(us) - 1
	return min(top*4+int(us>>(top-2)&3), timeBuckets-1)
}

// upperBound returns the end of a bucket.
func upperBound(i int) time.Duration {
	top, part := i/4, i%4
	if top < 2 {
		return 4 * time.Microsecond
	}
	return time.Duration(5+part) << (top - 2) * time.Microsecond
}
