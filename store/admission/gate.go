package admission

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// GateOptions bound how many Series requests run at once. The zero value does not.
type GateOptions struct {
	// MaxConcurrent is the number of Series requests that run at once; 0 or less is unlimited. More
	// requests use more cores and bucket connections, and each gets a smaller share.
	// AllowanceOptions bound their memory. A quarter of the places, rounded down but at least one,
	// is only for small requests, unless there is only one place.
	MaxConcurrent int
	// MaxWaiting is the maximum number of waiting Series requests, and of waiting label requests;
	// default 1000, negative is unlimited. Beyond it one request is rejected with
	// ResourceExhausted: one of the client address with the most waiting requests, and of that
	// client's tenant with the most. A quarter of the queue is only for small requests. A waiting
	// request costs about 20 KiB besides its message and what that compiles to, which the account
	// of request messages bounds.
	MaxWaiting int
	// FailFast rejects a Series request with Unavailable instead of letting it wait for a place.
	// Use it if a replica can answer instead, and not if this process alone has its blocks.
	FailFast bool
}

const defaultMaxWaiting = 1000

func (o *GateOptions) defaults() {
	if o.MaxWaiting == 0 {
		o.MaxWaiting = defaultMaxWaiting
	}
}

// places returns the number of places, how many of them only small requests may use, and how many
// large requests may use. All are 0 if places are unlimited.
func (o *GateOptions) places() (all, forSmall, forLarge int) {
	all = max(0, o.MaxConcurrent)
	if all < 2 {
		return all, all, all
	}
	forSmall = max(1, all/4)
	return all, forSmall, all - forSmall
}

// gateBuckets are those of Thanos, because its alerts and dashboards compute quantiles from them.
var gateBuckets = []float64{0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120, 240, 360, 720}

// gateMetrics are the metrics of the places for Series requests.
type gateMetrics struct {
	durations []prometheus.Histogram
	total     prometheus.Counter
	rejected  *prometheus.CounterVec
}

func newGateMetrics(c *Controller, reg prometheus.Registerer) (m gateMetrics) {
	f := promauto.With(reg)
	// Thanos exports the second name, but its alert and dashboard query the first. Users query
	// both.
	for _, name := range []string{
		"thanos_bucket_store_series_gate_duration_seconds",
		"thanos_bucket_store_series_gate_queries_duration_seconds",
	} {
		m.durations = append(m.durations, f.NewHistogram(prometheus.HistogramOpts{
			Name:    name,
			Help:    "Seconds that a Series request waited at the gate.",
			Buckets: gateBuckets,
		}))
	}
	f.NewGauge(prometheus.GaugeOpts{
		Name: "thanos_bucket_store_series_gate_queries_max",
		Help: "Maximum number of Series requests that run at once. 0 = unlimited.",
	}).Set(float64(c.places))
	c.gauge(f, "thanos_bucket_store_series_gate_queries_in_flight",
		"Series requests that are running.", nil,
		func() float64 { return float64(c.running[small] + c.running[large]) })
	m.total = f.NewCounter(prometheus.CounterOpts{
		Name: "thanos_bucket_store_series_gate_queries_total",
		Help: "Series requests that arrived at the gate.",
	})
	m.rejected = f.NewCounterVec(prometheus.CounterOpts{
		Name: "larder_series_gate_rejected_total",
		Help: "Series requests that the gate rejected, by reason.",
	}, []string{"reason"})
	for _, reason := range []string{rejectedBusy, rejectedQueue, rejectedGaveUp} {
		m.rejected.WithLabelValues(reason)
	}
	c.gauge(f, "larder_series_gate_waiting",
		"Series requests that are waiting for their turn.", nil,
		func() float64 {
			return float64(c.queues[small][SeriesRequest].len + c.queues[large][SeriesRequest].len)
		})
	return m
}

// gauge registers a gauge whose value is read under the lock.
func (c *Controller) gauge(
	f promauto.Factory, name, help string, labels prometheus.Labels, value func() float64,
) {
	opts := prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}
	f.NewGaugeFunc(opts, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return value()
	})
}
