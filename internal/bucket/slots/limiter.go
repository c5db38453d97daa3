package slots

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// DefaultMax is the default of Options.Max.
const DefaultMax = 256

const (
	defaultStart = 96
	defaultMin   = 4
	// cutInterval is the shortest time between two reductions of the limit.
	cutInterval = time.Second
)

// Options of a Limiter. The zero value works.
type Options struct {
	// Max is the number of reads that may run at once while the bucket does not throttle. Default
	// 256. A read that transfers has a buffer of 256 KiB, and a connection.
	Max int
	// Start is the number at the start. Default 96, at most Max. The limit grows from there if
	// reads wait.
	Start int
	// Min is the number that the limit never falls below. Default 4, at most Max. With fewer there
	// are too few answers to notice that the bucket has recovered.
	Min int
	// Registerer receives the metrics. Nil: none are kept.
	Registerer prometheus.Registerer
}

// Limiter bounds the concurrent reads of a bucket. It is safe for concurrent use.
type Limiter struct {
	max, min  float64
	start     float64
	throttles prometheus.Counter

	// gate has the slots that are held and not paused. Its lock guards the fields below too.
	gate  gate
	limit float64   // of slots; the gate's capacity is rounded down
	cut   time.Time // when limit was last halved
}

// New returns a limiter with all slots free.
func New(o Options) *Limiter {
	if o.Max <= 0 {
		o.Max = DefaultMax
	}
	if o.Min <= 0 {
		o.Min = defaultMin
	}
	if o.Start <= 0 {
		o.Start = defaultStart
	}
	start := float64(min(o.Start, o.Max))
	l := &Limiter{
		max:   float64(o.Max),
		min:   float64(min(o.Min, o.Max)),
		start: start,
		gate:  gate{capacity: int64(start)},
		limit: start,
		throttles: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_bucket_throttles_total",
			Help: "Answers of the bucket that asked for fewer requests (503 SlowDown, 429).",
		}),
	}
	if o.Registerer != nil {
		l.register(o.Registerer)
	}
	return l
}

func (l *Limiter) register(reg prometheus.Registerer) {
	locked := func(value func() int64) func() float64 {
		return func() float64 {
			l.gate.mu.Lock()
			defer l.gate.mu.Unlock()
			return float64(value())
		}
	}
	gauge := func(state string, value func() int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "larder_bucket_slots",
			Help: "Concurrent reads of the bucket: the limit, running reads, " +
				"waiting reads, and look-ahead that waits.",
			ConstLabels: prometheus.Labels{"state": state},
		}, locked(value))
	}
	reg.MustRegister(l.throttles,
		gauge("limit", func() int64 { return l.gate.capacity }),
		gauge("used", func() int64 { return l.gate.used }),
		gauge("waiting", func() int64 { return int64(l.gate.demand.len) }),
		gauge("ahead", func() int64 { return int64(l.gate.ahead.len) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "larder_bucket_reads_promoted_total",
			Help: "Waiting look-ahead reads of the bucket that a request came to need.",
		}, locked(func() int64 { return l.gate.promoted })))
}

// Acquire acquires a slot for the reader of ctx. It waits for one until ctx ends, and returns the
// error of ctx then.
func (l *Limiter) Acquire(ctx context.Context) error { return l.AcquireFor(ctx, NewRead(ctx)) }

// AcquireFor acquires a slot for r, which may be promoted meanwhile. It waits for one until ctx
// ends, and returns the error of ctx then.
func (l *Limiter) AcquireFor(ctx context.Context, r *Read) error {
	return l.gate.acquire(ctx, r, 1)
}

// TryAcquire acquires a slot if one is free and no request waits for one.
func (l *Limiter) TryAcquire() bool {
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	return l.gate.tryLocked(1, true)
}

// Release releases a slot.
func (l *Limiter) Release() { l.gate.release(1) }

// Pause declares that the holder of a slot sends nothing until it calls Resume. The slot does not
// count in the meantime.
func (l *Limiter) Pause() { l.Release() }

// Resume counts a paused slot again. It does not wait, and may exceed the limit.
func (l *Limiter) Resume() {
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	l.gate.used++
}

// Throttled reports an answer by which the bucket asked for fewer requests.
func (l *Limiter) Throttled() {
	l.throttles.Inc()
	now := time.Now()
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	if now.Sub(l.cut) < cutInterval {
		return
	}
	l.cut = now
	l.setLocked(max(l.limit/2, l.min))
}

// Answered reports that the bucket served a request. It raises the limit, but above that of the
// start only while reads wait: a limit that no read has used says nothing about the bucket.
func (l *Limiter) Answered() {
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	waiting := l.gate.demand.len + l.gate.ahead.len
	if l.limit == l.max || (l.limit >= l.start && waiting == 0) {
		return
	}
	l.setLocked(min(l.limit+1/l.limit, l.max))
	l.gate.grantLocked()
}

func (l *Limiter) setLocked(limit float64) { l.limit, l.gate.capacity = limit, int64(limit) }
