package retry

import "github.com/prometheus/client_golang/prometheus"

// What came of a repetition.
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
			Help: "Requests to the bucket that repeat or continue a failed one, by what failed it and what came of them.",
		}, []string{"reason", "result"}),
		gaveUp: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_bucket_gave_up_total",
			Help: "Operations of the bucket that failed though they could have been tried again: their deadline was near.",
		}, []string{"reason"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_bucket_retries_refused_total",
			Help: "Requests to the bucket that were not repeated when it was their turn, because the budget was spent.",
		}),
		resumed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_bucket_resumed_bytes_total",
			Help: "Bytes that did not have to be read again because a broken body was continued.",
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
				Help: "Requests to the bucket that may be repeated now.",
			}, b.left),
		)
	}
	return m
}
