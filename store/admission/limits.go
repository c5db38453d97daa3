package admission

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// LimitOptions bound a single request, and the requests of one tenant together. The zero value bounds nothing.
type LimitOptions struct {
	// Series is the number of series that a request may match, summed over blocks, before time range, shards and de-duplication;
	// 0 means no limit.
	Series uint64
	// Samples is the number of samples that a Series request may return, counted in chunks of 120 samples, the last of which may
	// be short; 0 means no limit. Thanos divides and drops the rest, which makes 1 to 119 mean no limit at all.
	Samples uint64
	// Bytes is the number of bytes of index and chunks that a request may use or fetch; 0 means no limit.
	Bytes uint64

	// Weight is a tenant's part of the turns of those who wait, against that of the others; 0 is 1. A tenant of twice the weight gets twice as much
	// as long as both wait.
	Weight float64
	// MaxConcurrent is how many Series requests of a tenant run at once; more wait. 0 means no limit but that of all together.
	MaxConcurrent int
	// RequestBytes is the part of the request allowance that the requests of a tenant may hold together, above 0 to 1; 0 means all. More of them
	// wait, and one that needs more is refused. It is never less than what a small request may hold.
	RequestBytes float64
	// Shared makes all tenants that have no limits of their own count as one, in turns and in what they may have together. It is a matter of
	// those limits alone that are for all others. It keeps who makes up names from having more for it.
	Shared bool
}

// samplesPerChunk is what Prometheus cuts chunks at, and so what a limit on samples is converted by.
const samplesPerChunk = 120

// weight is Weight with its default.
func (o *LimitOptions) weight() float64 {
	if o.Weight <= 0 {
		return 1
	}
	return o.Weight
}

// requestBytes is how much of an allowance of total bytes the requests of a tenant may hold, where each may hold small bytes.
func (o *LimitOptions) requestBytes(total, small int64) int64 {
	if o.RequestBytes <= 0 || o.RequestBytes >= 1 {
		return total
	}
	return max(small, int64(o.RequestBytes*float64(total)))
}

// Limits are the limits of tenants. A nil Limits bounds nothing.
type Limits struct {
	table   atomic.Pointer[limitTable]
	dropped *prometheus.CounterVec
	// named calls count with what dropped calls a tenant; nil: by its own name
	named func(tenant string, count func(label string))
}

// limitTable is immutable.
type limitTable struct {
	others  LimitOptions // of tenants that are not named
	tenants map[string]LimitOptions
}

// NewLimits makes the limits of a process and registers their metric. tenants are those of tenants that have their own, others those of all
// the others.
func NewLimits(others LimitOptions, tenants map[string]LimitOptions, reg prometheus.Registerer) *Limits {
	l := &Limits{}
	l.set(others, tenants)
	l.dropped = promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "thanos_bucket_store_queries_dropped_total",
		Help: "Requests that were dropped because of a limit.",
	}, []string{"reason", "tenant"})
	return l
}

// NameTenants makes the metric of dropped requests call each tenant what named calls count with. It
// is called before l is used. The series of the tenant first exist from the start. The caller
// deletes series of tenants from the metric that it returns.
func (l *Limits) NameTenants(
	first string, named func(tenant string, count func(label string)),
) *prometheus.CounterVec {
	l.named = named
	for _, reason := range []string{"series", "chunks", "bytes"} {
		l.dropped.WithLabelValues(reason, first)
	}
	return l.dropped
}

// drop counts a request of a tenant that was dropped.
func (l *Limits) drop(tenant, reason string) {
	count := func(label string) { l.dropped.WithLabelValues(reason, label).Inc() }
	if l.named == nil {
		count(tenant)
		return
	}
	l.named(tenant, count)
}

// set replaces the limits of the requests to come, and of those that wait.
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

// sharedTenant is what tenants count as that share their turns: no name that a client can give.
const sharedTenant = "\xff"

// account returns who a tenant's turns are counted for.
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

// For returns the limiters of one request.
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
	return limiter(o.Series, "series"), limiter(maxChunks, "chunks"), (*BytesLimiter)(limiter(o.Bytes, "bytes"))
}
