package store

import (
	"math"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// LimitOptions bound a single request. The zero value bounds nothing.
type LimitOptions struct {
	// Series is the number of series that a request may match, summed over blocks, before time range, shards and de-duplication;
	// 0 means no limit.
	Series uint64
	// Samples is the number of samples that a Series request may return, counted in chunks of 120 samples, the last of which may
	// be short; 0 means no limit. Thanos divides and drops the rest, which makes 1 to 119 mean no limit at all.
	Samples uint64
	// Bytes is the number of bytes of index and chunks that a request may use or fetch; 0 means no limit.
	Bytes uint64
}

// samplesPerChunk is what Prometheus cuts chunks at, and so what a limit on samples is converted by.
const samplesPerChunk = 120

// Limits makes the limiters of requests. A nil Limits bounds nothing.
type Limits struct {
	series, chunks, bytes uint64
	dropped               *prometheus.CounterVec
}

// NewLimits makes the limits of a process and registers their metric.
func NewLimits(opts LimitOptions, reg prometheus.Registerer) *Limits {
	l := &Limits{series: opts.Series, chunks: opts.Samples / samplesPerChunk, bytes: opts.Bytes}
	if opts.Samples%samplesPerChunk != 0 {
		l.chunks++
	}
	l.dropped = promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "thanos_bucket_store_queries_dropped_total",
		Help: "Requests that were dropped because of a limit.",
	}, []string{"reason", "tenant"})
	for _, reason := range []string{"series", "chunks", "bytes"} {
		l.dropped.WithLabelValues(reason, defaultTenant)
	}
	return l
}

// For returns the limiters of one request. The tenant only labels the metric, as in Thanos: limits are the same for all.
func (l *Limits) For(tenant string) (series, chunks *Limiter, bytes *BytesLimiter) {
	if l == nil {
		return nil, nil, nil
	}
	limiter := func(limit uint64, what string) *Limiter {
		if limit == 0 {
			return nil
		}
		return &Limiter{limit: limit, prefix: "exceeded " + what + " limit", dropped: func() { l.dropped.WithLabelValues(what, tenant).Inc() }}
	}
	return limiter(l.series, "series"), limiter(l.chunks, "chunks"), (*BytesLimiter)(limiter(l.bytes, "bytes"))
}

// Limiter counts something of one request up to a limit. It is safe for concurrent use. A nil Limiter has no limit.
type Limiter struct {
	limit   uint64
	used    atomic.Uint64
	prefix  string
	dropped func()
	// first is the first violation. Every later call returns it too, so that whichever goroutine reports it says the same.
	first atomic.Pointer[error]
}

// Reserve counts n more. Above the limit its error is a ResourceExhausted status in Thanos's words, which its Querier looks for.
// The first violation is the request's: every later call fails with it, and the metric counts it once.
func (l *Limiter) Reserve(n uint64) error {
	if l == nil {
		return nil
	}
	return l.reserve(n, l.prefix)
}

func (l *Limiter) reserve(n uint64, text string) error {
	if first := l.first.Load(); first != nil {
		return *first
	}
	var used uint64
	for {
		old := l.used.Load()
		if used = old + n; used < old {
			used = math.MaxUint64
		}
		if l.used.CompareAndSwap(old, used) {
			break
		}
	}
	if used <= l.limit {
		return nil
	}
	err := status.Errorf(codes.ResourceExhausted, "%s: limit %d violated (got %d)", text, l.limit, used)
	if l.first.CompareAndSwap(nil, &err) {
		l.dropped()
		return err
	}
	return *l.first.Load()
}

// BytesLimiter is a Limiter whose errors name what the bytes are of.
type BytesLimiter Limiter

// Reserve counts n more bytes of what: postings, series or chunks.
func (l *BytesLimiter) Reserve(what string, n uint64) error {
	if l == nil {
		return nil
	}
	return (*Limiter)(l).reserve(n, l.prefix+" while fetching "+what)
}
