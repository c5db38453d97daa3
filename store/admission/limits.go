package admission

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// LimitOptions bound a single request, and the requests of one tenant together. The zero value does
// not.
type LimitOptions struct {
	// Series is the number of series that a request may match, summed over blocks, before time
	// range, shards and deduplication; 0 is unlimited.
	Series uint64
	// Samples is the number of samples that a Series request may return; 0 is unlimited. It is
	// converted to chunks of 120 samples, rounded up. Thanos rounds down, and 1 to 119 mean
	// unlimited.
	Samples uint64
	// Bytes is the number of bytes of index and chunks that a request may use or fetch; 0 is
	// unlimited.
	Bytes uint64

	// Weight is the share of turns that a tenant gets while other tenants wait; 0 means 1. A tenant
	// of weight 2 gets twice as much as one of weight 1.
	Weight float64
	// MaxConcurrent is the number of Series requests of a tenant that run at once; further ones
	// wait. 0 is unlimited.
	MaxConcurrent int
	// RequestBytes is the part of the request allowance, above 0 up to 1, that the requests of a
	// tenant may reserve together; 0 means all. Further requests wait, and a request that needs
	// more by itself is rejected. It is never less than the size of a small request.
	RequestBytes float64
	// Shared makes all tenants without limits of their own share one turn, one MaxConcurrent and
	// one RequestBytes. A client then gains nothing from invented tenant names. It has no effect in
	// the limits of a single tenant.
	Shared bool
}

// samplesPerChunk is the number of samples at which Prometheus cuts a chunk.
const samplesPerChunk = 120

// weight returns Weight or its default.
func (o *LimitOptions) weight() float64 {
	if o.Weight <= 0 {
		return 1
	}
	return o.Weight
}

// requestBytes returns how many bytes the requests of a tenant may reserve together: of total
// bytes, but no less than small, the size of a small request.
func (o *LimitOptions) requestBytes(total, small int64) int64 {
	if o.RequestBytes <= 0 || o.RequestBytes >= 1 {
		return total
	}
	return max(small, int64(o.RequestBytes*float64(total)))
}

// Limits are the limits of all tenants. A nil Limits is unlimited. It is safe for concurrent use.
type Limits struct {
	table   atomic.Pointer[limitTable]
	dropped *prometheus.CounterVec
	// named calls count with the label value that dropped has for a tenant. nil: the tenant's name.
	named func(tenant string, count func(label string))
}

// limitTable is immutable.
type limitTable struct {
	others  LimitOptions // of tenants without limits of their own
	tenants map[string]LimitOptions
}

// NewLimits returns limits and registers their metric. tenants has the tenants with limits of their
// own; others applies to all other tenants. The caller must not change tenants afterwards.
func NewLimits(
	others LimitOptions, tenants map[string]LimitOptions, reg prometheus.Registerer,
) *Limits {
	l := &Limits{}
	l.set(others, tenants)
	l.dropped = promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "thanos_bucket_store_queries_dropped_total",
		Help: "Requests that were dropped because of a limit.",
	}, []string{"reason", "tenant"})
	return l
}

// NameTenants makes the metric of dropped requests use the name that named passes to count instead
// of the tenant's own. It is called before l is used. The series of the tenant first exist from the
// start. The caller deletes the series of tenants that lose their name from the returned metric.
func (l *Limits) NameTenants(
	first string, named func(tenant string, count func(label string)),
) *prometheus.CounterVec {
	l.named = named
	for _, reason := range []string{"series", "chunks", "bytes"} {
		l.dropped.WithLabelValues(reason, first)
	}
	return l.dropped
}

// drop counts a request of a tenant that exceeded a limit.
func (l *Limits) drop(tenant, reason string) {
	count := func(label string) { l.dropped.WithLabelValues(reason, label).Inc() }
	if l.named == nil {
		count(tenant)
		return
	}
	l.named(tenant, count)
}

// set replaces the limits, for new and for waiting requests.
func (l *Limits) set(others LimitOptions, tenants map[string]LimitOptions) {
	l.table.Store(&limitTable{others: others, tenants: tenants})
}

// of returns the limits of a tenant.
func (l *Limits) of(tenant string) LimitOptions {
	if l == nil {
		return LimitOptions{}
	}
	t := l.table.Load()
	if own, ok := t.tenants[tenant]; ok {
		return own
	}
	return t.others
}

// sharedTenant is the tenant of requests that share turns. TenantName never returns it.
const sharedTenant = "\xff"

// account returns the tenant to which the turns of a tenant count.
func (l *Limits) account(tenant string) string {
	if l == nil {
		return tenant
	}
	t := l.table.Load()
	if _, own := t.tenants[tenant]; !own && t.others.Shared {
		return sharedTenant
	}
	return tenant
}

// For returns the limiters of one request of a tenant, nil for those that are unlimited.
func (l *Limits) For(tenant string) (series, chunks *Limiter, bytes *BytesLimiter) {
	if l == nil {
		return nil, nil, nil
	}
	limiter := func(limit uint64, what string) *Limiter {
		if limit == 0 {
			return nil
		}
		return &Limiter{
			limit: limit, prefix: "exceeded " + what + " limit",
			dropped: func() { l.drop(tenant, what) },
		}
	}
	o := l.of(tenant)
	maxChunks := o.Samples / samplesPerChunk
	if o.Samples%samplesPerChunk != 0 {
		maxChunks++
	}
	series, chunks = limiter(o.Series, "series"), limiter(maxChunks, "chunks")
	return series, chunks, (*BytesLimiter)(limiter(o.Bytes, "bytes"))
}
