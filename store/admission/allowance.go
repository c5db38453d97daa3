package admission

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// AllowanceOptions bound the bytes that all requests reserve together.
type AllowanceOptions struct {
	// Bytes is the request allowance: how much all running requests may reserve together; default
	// 1 GiB. A request that needs more than Bytes - SmallLane is rejected. With a small allowance
	// requests wait or are rejected; a large one leaves less memory for caches and the kernel.
	Bytes int64
	// SmallLane is the part of Bytes that only small requests may use; default an eighth of Bytes,
	// at most 64 MiB. It keeps dashboards fast while large exports run.
	SmallLane int64
	// SmallRequest is the size in bytes up to which a request is small, and what each request gets
	// to start with; default an eighth of SmallLane, at least 1 MiB and at most 4 MiB. It is never
	// more than SmallLane. A dashboard panel should be small: a hundred series from as many pages
	// need about 2 MiB. With a larger size fewer small requests can start while large ones wait.
	SmallRequest int64
	// FlagBytes is the value of --store.request-bytes, which Bytes is a part of. Only errors use
	// it. With 0 they name the flag without its value.
	FlagBytes int64
}

const (
	defaultAllowance       = 1 << 30
	maxDefaultSmallLane    = 64 << 20
	minDefaultSmallRequest = 1 << 20
	maxDefaultSmallRequest = 4 << 20
)

func (o *AllowanceOptions) defaults() {
	if o.Bytes <= 0 {
		o.Bytes = defaultAllowance
	}
	if o.SmallLane <= 0 {
		o.SmallLane = min(o.Bytes/8, maxDefaultSmallLane)
	}
	o.SmallLane = min(o.SmallLane, o.Bytes)
	if o.SmallRequest <= 0 {
		o.SmallRequest = min(max(o.SmallLane/8, minDefaultSmallRequest), maxDefaultSmallRequest)
	}
	o.SmallRequest = min(o.SmallRequest, o.SmallLane) // else a small request might wait for ever
}

// String describes the allowance in errors. The flag is larger, because messages and the search for
// postings have parts of it.
func (o *AllowanceOptions) String() string {
	if o.FlagBytes > 0 {
		return fmt.Sprintf("the %s that --store.request-bytes (%s) leaves for requests",
			mib(o.Bytes), mib(o.FlagBytes))
	}
	return fmt.Sprintf("the %s of the request allowance (--store.request-bytes)", mib(o.Bytes))
}

// Reasons of rejections for lack of bytes, beside rejectedQueue.
const (
	refusedTooLarge = "too_large"
	refusedGaveUp   = "gave_up"
)

// allowanceMetrics are the metrics of the request allowance.
type allowanceMetrics struct {
	waited  [lanes]prometheus.Observer
	refused *prometheus.CounterVec
}

func newAllowanceMetrics(c *Controller, reg prometheus.Registerer) (m allowanceMetrics) {
	f := promauto.With(reg)
	for state, value := range map[string]func() int64{
		"limit":   func() int64 { return c.total },
		"in_use":  func() int64 { return c.reserved[small] + c.reserved[large] },
		"waiting": func() int64 { return c.waiting },
	} {
		c.gauge(
			f,
			"larder_request_allowance_bytes",
			"Bytes that requests may reserve (limit), have reserved (in_use) and wait for (waiting).",
			prometheus.Labels{"state": state},
			func() float64 { return float64(value()) },
		)
	}
	waited := f.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "larder_request_allowance_wait_seconds",
		Help:    "Seconds that a request waited for its bytes and, if it needs one, for a place.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
	}, []string{"lane"})
	for l := range lanes {
		m.waited[l] = waited.WithLabelValues(l.String())
		q := &c.queues[l]
		c.gauge(f, "larder_request_allowance_waiting", "Requests that are waiting for their turn.",
			prometheus.Labels{"lane": l.String()},
			func() float64 { return float64(q[SeriesRequest].len + q[LabelRequest].len) })
	}
	m.refused = f.NewCounterVec(prometheus.CounterOpts{
		Name: "larder_request_allowance_refused_total",
		Help: "Requests that were rejected for lack of bytes: " +
			"too large (too_large), abandoned while waiting (gave_up), " +
			"or label requests beyond the limit on waiting ones (queue).",
	}, []string{"reason"})
	for _, reason := range []string{refusedTooLarge, refusedGaveUp, rejectedQueue} {
		m.refused.WithLabelValues(reason)
	}
	return m
}
