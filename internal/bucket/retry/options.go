package retry

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Limiter bounds the concurrent reads of the bucket: a slots.Limiter. Every operation runs in a
// slot that its caller holds.
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
	// minPatience is the shortest time for a request near the caller's deadline: half of the time
	// left, but at least this.
	minPatience = 500 * time.Millisecond
)

// Options of a Bucket. The zero value works.
type Options struct {
	// Budget is the number of retries that each operation earns. Default 0.1. More survives worse
	// faults, and adds more load to a bucket in trouble.
	Budget float64
	// Burst is the number of unused retries that are saved. Default 30. More carries more
	// concurrent reads over a short fault without waiting, and costs the bucket more in a long one.
	Burst int
	// FirstByte is the time after which an unanswered request is sent again. Default 15 s, and at
	// most half of the time that its caller has left. Shorter finds a lost request sooner, and
	// repeats slow ones.
	FirstByte time.Duration
	// Stall is how long a body or a listing may make no progress. Default 10 s, bounded the same
	// way as FirstByte.
	Stall time.Duration
	// Patience is how long after its first fault an operation without a deadline fails. Default
	// 10 s. Longer survives longer faults, and reports them later.
	Patience time.Duration
	// MinBackoff is the pause before the first retry. It doubles for each further one, up to
	// MaxBackoff. Defaults 100 ms and 5 s. Each pause is shortened at random by up to a half.
	MinBackoff, MaxBackoff time.Duration
	// WholeBytes bounds the memory of whole objects that are read to their end before they are
	// delivered, in bytes for all together. Default 24 MiB. Beyond it an object is streamed, and a
	// fault in its body is returned to the reader. Less saves memory.
	WholeBytes int64
	// Limiter is told of answers, refusals and pauses. Default nil: none.
	Limiter Limiter
	// Logger gets panics of the client. Default nil: none.
	Logger *slog.Logger
	// Registerer gets the metrics. Default nil: none.
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
