package store

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// tenantMetrics show what each tenant asks for, what its requests cost, and how long they wait. All
// are counters, so that sums over tenants are right whichever tenants have names.
type tenantMetrics struct {
	requests       *prometheus.CounterVec
	bytes          *prometheus.CounterVec
	bucketRequests *prometheus.CounterVec
	waited         *prometheus.CounterVec
	overruns       *prometheus.CounterVec
}

// Values of the label kind of larder_tenant_bytes_total, and of the label on of
// larder_tenant_wait_seconds_total.
const (
	tenantTouched = "touched"
	tenantFetched = "fetched"
	tenantSent    = "sent"

	waitedForTurn  = "turn"
	waitedForPages = "pages"
)

func newTenantMetrics(f factory) tenantMetrics {
	m := tenantMetrics{
		requests: f.counters("larder_tenant_requests_total",
			"Requests that ended, successful or not, by tenant.", "method", "tenant"),
		bytes: f.counters("larder_tenant_bytes_total",
			"Bytes of requests by tenant. Touched: bytes of pages that were used. Fetched: those "+
				"that were read from the bucket. Sent: bytes of Series responses.",
			"kind", "tenant"),
		bucketRequests: f.counters("larder_tenant_bucket_requests_total",
			"Reads of the bucket that requests started, by tenant.", "tenant"),
		waited: f.counters("larder_tenant_wait_seconds_total",
			"Seconds that requests waited for their turn, or for pages that were not in memory, "+
				"summed over blocks, by tenant.", "on", "tenant"),
		overruns: f.counters("larder_tenant_budget_overruns_total",
			"Requests that exceeded a latency budget, by tenant.", "tenant"),
	}
	first := f.names.first()
	for _, method := range []string{methodSeries, methodLabelNames, methodLabelValues} {
		m.requests.WithLabelValues(method, first)
	}
	for _, kind := range []string{tenantTouched, tenantFetched, tenantSent} {
		m.bytes.WithLabelValues(kind, first)
	}
	m.bucketRequests.WithLabelValues(first)
	m.overruns.WithLabelValues(first)
	for _, on := range []string{waitedForTurn, waitedForPages} {
		m.waited.WithLabelValues(on, first)
	}
	return m
}

// observe records a finished request. label is the tenant's name in metrics.
func (m *tenantMetrics) observe(r *request, label string) {
	var touched, fetched, requests, waited int64
	for _, k := range r.kinds() {
		touched += k.acct.TouchedBytes.Load()
		fetched += k.acct.FetchedBytes.Load()
		requests += k.acct.Requests.Load()
		waited += k.acct.Waited.Load()
	}
	m.requests.WithLabelValues(r.method, label).Inc()
	m.bytes.WithLabelValues(tenantTouched, label).Add(float64(touched))
	m.bytes.WithLabelValues(tenantFetched, label).Add(float64(fetched))
	m.bytes.WithLabelValues(tenantSent, label).Add(float64(r.sent.Bytes))
	m.bucketRequests.WithLabelValues(label).Add(float64(requests))
	overruns := m.overruns.WithLabelValues(label) // from a tenant's first request on
	if len(r.exceeded) > 0 {
		overruns.Inc()
	}
	m.waited.WithLabelValues(waitedForTurn, label).
		Add(time.Duration(r.stages[stageGate].Load()).Seconds())
	m.waited.WithLabelValues(waitedForPages, label).Add(time.Duration(waited).Seconds())
}
