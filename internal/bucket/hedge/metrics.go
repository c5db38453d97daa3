package hedge

import "github.com/prometheus/client_golang/prometheus"

// Why a read was hedged, and what came of it.
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
			Help: "Extra requests to the bucket, by why they were made and whether their answer was used.",
		}, []string{"reason", "result"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_bucket_hedges_refused_total",
			Help: "Extra requests to the bucket that were not made, by what forbade them.",
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
		Help: "Extra requests to the bucket that the requests so far have earned and that are not spent.",
	}, func() float64 { return float64(b.gate.budget.Load()) / token }))
	for _, c := range b.classes() {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "larder_bucket_hedge_delay_seconds",
			Help:        "Time after which the first byte of a read of that size is late. 0 while too little is known.",
			ConstLabels: prometheus.Labels{"size": c.name},
		}, func() float64 { return c.delay().Seconds() }))
	}
	return m
}
