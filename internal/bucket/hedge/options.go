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
	// UpTo is the maximum number of extra requests for one read. Each starts after twice the delay
	// of the one before. Default 3.
	UpTo int
	// Quantile of recent first-byte times after which a read is late. Default 0.95. It is raised to
	// 1 - Budget if it is lower, because an earlier start would spend the budget on reads that are
	// not the slowest.
	Quantile float64
	// ReadBudget returns the latency budget of a first byte; it is asked for each read. A read
	// within it is not late, even if the quantile is shorter. Before MinSamples were seen, the
	// budget alone says when a read is late. Default nil, and 0: the quantile decides alone. A
	// longer one costs fewer requests and leaves more reads slow.
	ReadBudget func() time.Duration
	// Budget is the number of extra requests per request. Default 0.05. More hedges more of the
	// slow reads, and adds load.
	Budget float64
	// Burst is the number of unspent extra requests that are saved. Default 10. More helps when one
	// of many servers stops, and costs the bucket more when all of them do.
	Burst int
	// MinSamples is the number of first bytes of a size class that must be seen before its reads
	// are hedged. Default 100.
	MinSamples int
	// MinDelay is the shortest time after which a read is late. Default 5 ms. Shorter gains nothing
	// with a bucket that answers faster.
	MinDelay time.Duration
	// A body that makes no progress for StallFactor times the delay of the first byte, and at least
	// for MinStall, has stalled. Defaults 4 and 200 ms.
	StallFactor int
	MinStall    time.Duration
	// Limiter bounds the extra requests. Default nil: only Budget does.
	Limiter Limiter
	// Logger gets panics of the client. Default nil: none.
	Logger *slog.Logger
	// Registerer gets the metrics. Default nil: none.
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
	if o.ReadBudget == nil {
		o.ReadBudget = func() time.Duration { return 0 }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
