package hedge

import "github.com/prometheus/client_golang/prometheus"

// Reasons and results of a hedge.
const (
	reasonFirstByte = "first_byte"
	reasonStall     = "stalled_body"

	resultWon    = "won"
	resultLost   = "lost"
	resultFailed = "failed"
)

type metrics struct {
	hedges, refused *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, b *Bucket) *metrics {
	m := &metrics{
		hedges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_bucket_hedges_total",
			Help: "Hedged requests to the bucket, by reason and by whether their answer was used.",
		}, []string{"reason", "result"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_bucket_hedges_refused_total",
			Help: "Hedged requests that were suppressed, by reason and cause.",
		}, []string{"reason", "cause"}),
	}
	for _, reason := range []string{reasonFirstByte, reasonStall} {
		for _, result := range []string{resultWon, resultLost, resultFailed} {
			m.hedges.WithLabelValues(reason, result)
		}
		for _, cause := range []string{refusedBudget, refusedSlots, refusedFailing, refusedSlow} {
			m.refused.WithLabelValues(reason, cause)
		}
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.hedges, m.refused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "larder_bucket_hedge_budget",
		Help: "Hedged requests that the budget allows now.",
	}, func() float64 { return float64(b.gate.budget.Load()) / token }))
	for _, c := range b.classes() {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "larder_bucket_hedge_delay_seconds",
			Help:        "Time after which the first byte of a read of this size class is late. 0 before enough reads were seen.",
			ConstLabels: prometheus.Labels{"size": c.name},
		}, func() float64 { return c.delay().Seconds() }))
	}
	return m
}
