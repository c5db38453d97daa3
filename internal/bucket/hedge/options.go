package hedge

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Limiter bounds the concurrent reads of the bucket: a slots.Limiter. The first request of a read
// runs in the caller's slot.
type Limiter interface {
	// TryAcquire acquires a slot if one is free and no read waits for one.
	TryAcquire() bool
	Release()
}

const (
	defaultUpTo        = 3
	defaultQuantile    = 0.95
	defaultBudget      = 0.05
	defaultBurst       = 10
	defaultMinSamples  = 100
	defaultMinDelay    = 5 * time.Millisecond
	defaultStallFactor = 4
	defaultMinStall    = 200 * time.Millisecond
)

// Options of a Bucket. The zero value works.
type Options struct {
	// UpTo is how many requests may be started besides the first for one read,
	// each after twice the delay of the one before; 3 by default.
	UpTo int
	// Quantile of recent first-byte times after which a read is late; 0.95 by
	// default. It is never below 1 - Budget: an earlier start would spend the
	// budget on reads that are not the slowest.
	Quantile float64
	// Budget is the number of extra requests per request; 0.05 by default.
	Budget float64
	// Burst is how many unspent extra requests are kept for later; 10 by
	// default. More helps when one of many servers stops, and costs the bucket
	// more when all of them do.
	Burst int
	// MinSamples is how many first bytes of a size class must have been seen
	// before its reads are hedged; 100 by default.
	MinSamples int
	// MinDelay is the shortest time after which a read is late; 5 ms by default.
	// A bucket that answers faster gains nothing.
	MinDelay time.Duration
	// StallFactor times the delay of the first byte, and at least MinStall, is
	// how long a body may make no progress; 4 and 200 ms by default.
	StallFactor int
	MinStall    time.Duration
	// Limiter bounds the extra requests. Default nil: only Budget does.
	Limiter Limiter
	// Logger hears about panics. Nil: nobody.
	Logger *slog.Logger
	// Registerer receives the metrics. Nil: none are kept.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	if o.UpTo <= 0 {
		o.UpTo = defaultUpTo
	}
	if o.Budget <= 0 {
		o.Budget = defaultBudget
	}
	if o.Quantile <= 0 || o.Quantile >= 1 {
		o.Quantile = defaultQuantile
	}
	o.Quantile = max(o.Quantile, 1-o.Budget)
	if o.Burst <= 0 {
		o.Burst = defaultBurst
	}
	if o.MinSamples <= 0 {
		o.MinSamples = defaultMinSamples
	}
	if o.MinDelay <= 0 {
		o.MinDelay = defaultMinDelay
	}
	if o.StallFactor <= 0 {
		o.StallFactor = defaultStallFactor
	}
	if o.MinStall <= 0 {
		o.MinStall = defaultMinStall
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
