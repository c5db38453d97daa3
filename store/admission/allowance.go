package admission

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// AllowanceOptions say how many bytes requests may hold together.
type AllowanceOptions struct {
	// Bytes is what all running requests may hold together; default 1 GiB. A request that needs more than Bytes less SmallLane
	// is refused. Less memory for requests makes them wait, or refuses them; more is taken from caches, or from the kernel's patience.
	Bytes int64
	// SmallLane is the part of Bytes that large requests leave to small ones, in bytes; default an eighth of Bytes, at most 64 MiB.
	// It is what keeps dashboards alive beside an export of everything.
	SmallLane int64
	// SmallRequest is the size in bytes up to which a request is small, and what a request has to find out with how much it needs; default an eighth of
	// SmallLane, but at least 1 MiB and at most 4 MiB, and never more than SmallLane. A hundred series of as many pages are some 2 MiB: a dashboard's
	// panel should be small. What is larger lets fewer small requests begin at once while large ones wait.
	SmallRequest int64
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
	o.SmallRequest = min(o.SmallRequest, o.SmallLane) // A small request must fit into its lane, or it might wait for ever.
}

// allowanceMetrics are about the bytes of an Admission.
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
		c.gauge(f, "larder_request_allowance_bytes", "Bytes that requests may hold together (limit), hold now (in_use), and wait for (waiting).",
			prometheus.Labels{"state": state}, func() float64 { return float64(value()) })
	}
	waited := f.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "larder_request_allowance_wait_seconds",
		Help:    "Seconds that requests waited for their turn: for their bytes and, if they are Series requests, for a place.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
	}, []string{"lane"})
	for l := range lanes {
		m.waited[l] = waited.WithLabelValues(l.String())
		c.gauge(f, "larder_request_allowance_waiting", "Requests that wait for their turn.", prometheus.Labels{"lane": l.String()},
			func() float64 { return float64(c.queues[l][SeriesRequest].len + c.queues[l][LabelRequest].len) })
	}
	m.refused = f.NewCounterVec(prometheus.CounterOpts{
		Name: "larder_request_allowance_refused_total",
		Help: "Requests that got no bytes: too large for the allowance, given up by the client while waiting, or label requests too many of which wait (queue).",
	}, []string{"reason"})
	return m
}
