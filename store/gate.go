package store

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// GateOptions bound how many Series requests run at once. The zero value lets all of them run.
type GateOptions struct {
	// MaxConcurrent is the number of Series requests that run at once; 0 or less means no bound. More of them use more cores and
	// bucket connections, and each gets a smaller share. What they hold in memory is bounded by the Allowance, not by this.
	MaxConcurrent int
	// MaxWaiting is the number of Series requests that wait for one of those places; what comes on top fails at once with
	// ResourceExhausted. Default 1000; negative means no bound. A waiting request costs some 20 KiB.
	MaxWaiting int
	// FailFast makes a request fail with Unavailable rather than wait. That is right where a replica can answer in its place, and
	// wrong where this process is the only one to have its blocks.
	FailFast bool
}

const defaultMaxWaiting = 1000

// gateBuckets are Thanos's: its alert and dashboard on gate latency compute quantiles from them.
var gateBuckets = []float64{0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120, 240, 360, 720}

// Gate counts Series requests and makes them wait, first come first served, until there is a place or the client's deadline
// has passed. A nil Gate lets everything through.
type Gate struct {
	opts    GateOptions
	places  *semaphore.Weighted // nil when nothing is bounded
	waiting atomic.Int64

	durations []prometheus.Histogram
	inFlight  prometheus.Gauge
	total     prometheus.Counter
	rejected  *prometheus.CounterVec
}

// NewGate makes a gate and registers its metrics.
func NewGate(opts GateOptions, reg prometheus.Registerer) *Gate {
	if opts.MaxWaiting == 0 {
		opts.MaxWaiting = defaultMaxWaiting
	}
	f := promauto.With(reg)
	g := &Gate{opts: opts}
	if opts.MaxConcurrent > 0 {
		g.places = semaphore.NewWeighted(int64(opts.MaxConcurrent))
	}
	// Thanos's process exports the second name, while its alert and dashboard ask for the first. Users have either in theirs.
	for _, name := range []string{
		"thanos_bucket_store_series_gate_duration_seconds",
		"thanos_bucket_store_series_gate_queries_duration_seconds",
	} {
		g.durations = append(g.durations, f.NewHistogram(prometheus.HistogramOpts{
			Name: name, Help: "Seconds that Series requests waited at the gate.", Buckets: gateBuckets,
		}))
	}
	f.NewGauge(prometheus.GaugeOpts{
		Name: "thanos_bucket_store_series_gate_queries_max", Help: "Series requests that may run at once, 0 without a bound.",
	}).Set(float64(max(0, opts.MaxConcurrent)))
	g.inFlight = f.NewGauge(prometheus.GaugeOpts{
		Name: "thanos_bucket_store_series_gate_queries_in_flight", Help: "Series requests that run now.",
	})
	g.total = f.NewCounter(prometheus.CounterOpts{
		Name: "thanos_bucket_store_series_gate_queries_total", Help: "Series requests that came to the gate.",
	})
	g.rejected = f.NewCounterVec(prometheus.CounterOpts{
		Name: "larder_series_gate_rejected_total", Help: "Series requests that the gate did not let through.",
	}, []string{"reason"})
	for _, reason := range []string{rejectedBusy, rejectedQueue, rejectedGaveUp} {
		g.rejected.WithLabelValues(reason)
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "larder_series_gate_waiting", Help: "Series requests that wait at the gate now.",
	}, func() float64 { return float64(g.waiting.Load()) })
	return g
}

// Why the gate did not let a request through.
const (
	rejectedBusy   = "busy"    // FailFast
	rejectedQueue  = "queue"   // MaxWaiting
	rejectedGaveUp = "gave_up" // the client's deadline passed, or the client went away
)

// Start waits for a place. Only after it returned nil, Done gives the place back. Its errors carry a gRPC status.
func (g *Gate) Start(ctx context.Context) error {
	if g == nil {
		return nil
	}
	start := time.Now()
	err := g.enter(ctx)
	for _, h := range g.durations {
		h.Observe(time.Since(start).Seconds())
	}
	g.total.Inc()
	if err == nil {
		g.inFlight.Inc()
	}
	return err
}

func (g *Gate) enter(ctx context.Context) error {
	if g.places == nil || g.places.TryAcquire(1) {
		return nil
	}
	if g.opts.FailFast {
		g.rejected.WithLabelValues(rejectedBusy).Inc()
		return status.Errorf(codes.Unavailable, "all %d places for Series requests are taken", g.opts.MaxConcurrent)
	}
	defer g.waiting.Add(-1)
	if n := g.waiting.Add(1); g.opts.MaxWaiting >= 0 && n > int64(g.opts.MaxWaiting) {
		g.rejected.WithLabelValues(rejectedQueue).Inc()
		return status.Errorf(codes.ResourceExhausted,
			"all %d places for Series requests are taken and %d requests wait for one", g.opts.MaxConcurrent, g.opts.MaxWaiting)
	}
	start := time.Now()
	if err := g.places.Acquire(ctx, 1); err != nil {
		g.rejected.WithLabelValues(rejectedGaveUp).Inc()
		return status.Errorf(status.FromContextError(err).Code(), "waited %s for one of %d places for Series requests: %s",
			time.Since(start).Round(time.Millisecond), g.opts.MaxConcurrent, err)
	}
	return nil
}

// Waiting reports whether requests wait at the gate.
func (g *Gate) Waiting() bool { return g != nil && g.waiting.Load() > 0 }

// Done gives back the place that Start got.
func (g *Gate) Done() {
	if g == nil {
		return
	}
	g.inFlight.Dec()
	if g.places != nil {
		g.places.Release(1)
	}
}
