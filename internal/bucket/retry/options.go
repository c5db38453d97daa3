package retry

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Limiter bounds the concurrent reads of the bucket: a slots.Limiter. Every operation runs in a slot
// that its caller holds.
type Limiter interface {
	// Throttled reports an answer that asked for fewer requests, Answered any other answer.
	Throttled()
	Answered()
	// Pause and Resume enclose the time in which an operation waits for its next attempt. Neither
	// waits.
	Pause()
	Resume()
}

const (
	defaultBudget     = 0.1
	defaultBurst      = 30
	defaultFirstByte  = 15 * time.Second
	defaultStall      = 10 * time.Second
	defaultPatience   = 10 * time.Second
	defaultMinBackoff = 100 * time.Millisecond
	defaultMaxBackoff = 5 * time.Second
	defaultWholeBytes = 24 << 20
	// minPatience is the least time that a request is given where the caller's
	// deadline is near: half of what is left, but not less than this.
	minPatience = 500 * time.Millisecond
)

// Options of a Bucket. The zero value works.
type Options struct {
	// Budget is how many repetitions each operation earns; 0.1 by default.
	Budget float64
	// Burst is how many repetitions are kept for later; 30 by default. More
	// carries more reads at once over a short fault of the whole bucket without
	// waiting, and costs the bucket more in a long one.
	Burst int
	// FirstByte is how long a request may go unanswered before it is sent again;
	// 15 s by default, and at most half of the time that its caller has left.
	// Shorter finds a lost request sooner, and takes slow ones for lost.
	FirstByte time.Duration
	// Stall is how long a body, or a listing, may make no progress; 10 s by
	// default, bounded as FirstByte is.
	Stall time.Duration
	// Patience is how long after its first fault an operation is given up whose
	// context has no deadline; 10 s by default. Longer carries it over longer faults,
	// and tells later that there is one.
	Patience time.Duration
	// MinBackoff is the pause before the first repetition, doubled for each
	// further one up to MaxBackoff; 100 ms and 5 s by default. Each is shortened by up
	// to a half at random.
	MinBackoff, MaxBackoff time.Duration
	// WholeBytes is for whole objects that are held until they have come to their end,
	// all together; 24 MiB by default. Where there is no more, an object is delivered as
	// it comes, and a fault on the way is its reader's. Less saves memory.
	WholeBytes int64
	// Limiter is told of answers, refusals and pauses. Default nil: none.
	Limiter Limiter
	// Logger hears about panics. Nil: nobody.
	Logger *slog.Logger
	// Registerer receives the metrics. Nil: none are kept.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	if o.Budget <= 0 {
		o.Budget = defaultBudget
	}
	if o.Burst <= 0 {
		o.Burst = defaultBurst
	}
	if o.FirstByte <= 0 {
		o.FirstByte = defaultFirstByte
	}
	if o.Stall <= 0 {
		o.Stall = defaultStall
	}
	if o.Patience <= 0 {
		o.Patience = defaultPatience
	}
	if o.MinBackoff <= 0 {
		o.MinBackoff = defaultMinBackoff
	}
	if o.MaxBackoff <= 0 {
		o.MaxBackoff = defaultMaxBackoff
	}
	if o.WholeBytes <= 0 {
		o.WholeBytes = defaultWholeBytes
	}
	o.MaxBackoff = max(o.MaxBackoff, o.MinBackoff)
	if o.Limiter == nil {
		o.Limiter = noLimiter{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

type noLimiter struct{}

func (noLimiter) Throttled() {}
func (noLimiter) Answered()  {}
func (noLimiter) Pause()     {}
func (noLimiter) Resume()    {}
