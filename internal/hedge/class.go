package hedge

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Times are counted in microseconds, four buckets to a doubling, up to 19 h.
	timeBuckets = 37 * 4
	// A class forgets half of what it knows when it has seen this many first
	// bytes, or after a minute while enough remains to go by: a bucket that was
	// slow an hour ago says little about now.
	classMemory = 2048
	halfLife    = time.Minute
	// relearnEvery is how many first bytes pass before the delay is worked out
	// anew.
	relearnEvery = 32
)

// class learns how long the first bytes of reads of one size take.
type class struct {
	name       string
	quantile   float64
	minSamples int64
	minDelay   time.Duration

	late atomic.Int64 // the delay in nanoseconds, 0 while too little is known

	counts [timeBuckets]atomic.Int64
	seen   atomic.Int64

	learning sync.Mutex
	halved   time.Time // guarded by learning
}

func newClass(name string, o Options) *class {
	return &class{name: name, quantile: o.Quantile, minSamples: int64(o.MinSamples), minDelay: o.MinDelay, halved: time.Now()}
}

// delay returns the time after which a read is late, 0 while too little is known.
func (c *class) delay() time.Duration { return time.Duration(c.late.Load()) }

// observe counts one first byte. That of a request which was cancelled because
// it was late must be counted with the time it had waited: that is enough to
// know on which side of the quantile it lies, and to leave it out would make the
// bucket look faster the more is hedged.
func (c *class) observe(d time.Duration) {
	c.counts[bucketOf(d)].Add(1)
	n := c.seen.Add(1)
	if (n%relearnEvery == 0 || n == c.minSamples) && c.learning.TryLock() {
		c.learn(time.Now())
		c.learning.Unlock()
	}
}

// learn works out the delay, and forgets. The counts may move meanwhile: the
// delay is an estimate.
func (c *class) learn(now time.Time) {
	var counts [timeBuckets]int64
	var total int64
	for i := range counts {
		counts[i] = c.counts[i].Load()
		total += counts[i]
	}
	if total < c.minSamples {
		return
	}
	below, want := int64(0), int64(float64(total)*c.quantile)
	for i, n := range counts {
		if below += n; below > want || i == timeBuckets-1 {
			c.late.Store(int64(max(upperBound(i), c.minDelay)))
			break
		}
	}
	if total >= classMemory || (now.Sub(c.halved) >= halfLife && total >= 2*c.minSamples) {
		for i, n := range counts {
			c.counts[i].Add(-n / 2)
		}
		c.halved = now
	}
}

// bucketOf returns the bucket of a time: the position of its highest bit and the
// two bits below it.
func bucketOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 4))
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
