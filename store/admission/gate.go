package admission

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// GateOptions bound how many Series requests run at once. The zero value lets all of them run.
type GateOptions struct {
	// MaxConcurrent is the number of Series requests that run at once; 0 or less means no bound. More of them use more cores and
	// bucket connections, and each gets a smaller share. What they hold in memory is bounded by AllowanceOptions, not by this. Large requests have at most
	// three quarters of the places, and all but one of fewer than four, unless there is only one.
	MaxConcurrent int
	// MaxWaiting is the number of Series requests that wait for their turn, and that of label
	// requests. Of more, one fails at once with ResourceExhausted: of the client address that has
	// most waiting, and of its tenant that has. Default 1000; negative means no bound. Of large
	// requests at most three quarters of it wait. A waiting request costs some 20 KiB besides its
	// message and what that compiles to, which Options.Messages bounds.
	MaxWaiting int
	// FailFast makes a request fail with Unavailable rather than wait for a place. That is right where a replica can answer in its place, and
	// wrong where this process is the only one to have its blocks.
	FailFast bool
}

const defaultMaxWaiting = 1000

func (o *GateOptions) defaults() {
	if o.MaxWaiting == 0 {
		o.MaxWaiting = defaultMaxWaiting
	}
}

// places returns the number of places, how many of them are left to small requests, and how many large ones may have; 0 for no bound.
func (o *GateOptions) places() (all, forSmall, forLarge int) {
	all = max(0, o.MaxConcurrent)
	if all < 2 {
		return all, all, all
	}
	forSmall = max(1, all/4)
	return all, forSmall, all - forSmall
}

// gateBuckets are Thanos's: its alert and dashboard on gate latency compute quantiles from them.
var gateBuckets = []float64{0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120, 240, 360, 720}

// gateMetrics are what dashboards and alerts read about the places of an Admission.
type gateMetrics struct {
	durations []prometheus.Histogram
	total     prometheus.Counter
	rejected  *prometheus.CounterVec
}

func newGateMetrics(c *Controller, reg prometheus.Registerer) (m gateMetrics) {
	f := promauto.With(reg)
	// Thanos's process exports the second name, while its alert and dashboard ask for the first. Users have either in theirs.
	for _, name := range []string{
		"thanos_bucket_store_series_gate_duration_seconds",
		"thanos_bucket_store_series_gate_queries_duration_seconds",
	} {
		m.durations = append(m.durations, f.NewHistogram(prometheus.HistogramOpts{
			Name: name, Help: "Seconds that Series requests waited at the gate.", Buckets: gateBuckets,
		}))
	}
	f.NewGauge(prometheus.GaugeOpts{
		Name: "thanos_bucket_store_series_gate_queries_max", Help: "Series requests that may run at once, 0 without a bound.",
	}).Set(float64(c.places))
	c.gauge(f, "thanos_bucket_store_series_gate_queries_in_flight", "Series requests that run now.", nil,
		func() float64 { return float64(c.running[small] + c.running[large]) })
	m.total = f.NewCounter(prometheus.CounterOpts{
		Name: "thanos_bucket_store_series_gate_queries_total", Help: "Series requests that came to the gate.",
	})
	m.rejected = f.NewCounterVec(prometheus.CounterOpts{
		Name: "larder_series_gate_rejected_total", Help: "Series requests that the gate did not let through.",
	}, []string{"reason"})
	for _, reason := range []string{rejectedBusy, rejectedQueue, rejectedGaveUp} {
		m.rejected.WithLabelValues(reason)
	}
	c.gauge(f, "larder_series_gate_waiting", "Series requests that wait for their turn now.", nil,
		func() float64 {
			return float64(c.queues[small][SeriesRequest].len + c.queues[large][SeriesRequest].len)
		})
	return m
}

// gauge exports a figure that is read under the lock.
func (c *Controller) gauge(f promauto.Factory, name, help string, labels prometheus.Labels, value func() float64) {
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return value()
	})
}
