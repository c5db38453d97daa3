package retry

import "github.com/prometheus/client_golang/prometheus"

// Results of a retry.
const (
	resultOK     = "ok"
	resultFailed = "failed"
)

type metrics struct {
	retries, gaveUp *prometheus.CounterVec
	refused         prometheus.Counter
	resumed         prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, b *budget) *metrics {
	m := &metrics{
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_bucket_retries_total",
			Help: "Requests to the bucket that repeat or continue a failed one, by the reason of the failure and the result.",
		}, []string{"reason", "result"}),
		gaveUp: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_bucket_gave_up_total",
			Help: "Operations of the bucket that failed with an error that may pass, because no time was left for a retry.",
		}, []string{"reason"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_bucket_retries_refused_total",
			Help: "Retries that had to wait for another pause because the retry budget was spent.",
		}),
		resumed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_bucket_resumed_bytes_total",
			Help: "Bytes that were not read twice because a broken body was continued.",
		}),
	}
	for _, reason := range reasons() {
		m.retries.WithLabelValues(reason, resultOK)
		m.retries.WithLabelValues(reason, resultFailed)
		m.gaveUp.WithLabelValues(reason)
	}
	if reg != nil {
		reg.MustRegister(
			m.retries,
			m.gaveUp,
			m.refused,
			m.resumed,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "larder_bucket_retry_budget",
				Help: "Retries that the budget allows now.",
			}, b.left),
		)
	}
	return m
}
