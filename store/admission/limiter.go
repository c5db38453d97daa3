package admission

import (
	"math"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Limiter counts one kind of thing in one request, up to a limit. It is safe for concurrent use. A
// nil Limiter has no limit.
type Limiter struct {
	limit   uint64
	used    atomic.Uint64
	prefix  string
	dropped func()
	// first is the first violation. All later calls return it, so that all goroutines of the
	// request report the same error.
	first atomic.Pointer[error]
}

// Reserve counts n more. Above the limit it returns a ResourceExhausted status with the text of
// Thanos, for which its Querier looks. The metric counts the first violation only. All later calls
// return the error of the first.
func (l *Limiter) Reserve(n uint64) error {
	if l == nil {
		return nil
	}
	return l.reserve(n, l.prefix)
}

// Foresee says what Reserve would count in all with n more, and whether that is above the limit.
func (l *Limiter) Foresee(n uint64) (all, limit uint64, above bool) {
	if l == nil {
		return 0, 0, false
	}
	used := l.used.Load()
	if all = used + n; all < used {
		all = math.MaxUint64
	}
	return all, l.limit, all > l.limit
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
	err := status.Errorf(codes.ResourceExhausted,
		"%s: limit %d violated (got %d)", text, l.limit, used)
	if l.first.CompareAndSwap(nil, &err) {
		l.dropped()
		return err
	}
	return *l.first.Load()
}

// BytesLimiter is a Limiter whose errors name the kind of bytes.
type BytesLimiter Limiter

// Foresee is that of Limiter.
func (l *BytesLimiter) Foresee(n uint64) (all, limit uint64, above bool) {
	return (*Limiter)(l).Foresee(n)
}

// Reserve counts n more bytes of what: postings, series or chunks. Its errors are those of
// Limiter.Reserve.
func (l *BytesLimiter) Reserve(what string, n uint64) error {
	if l == nil {
		return nil
	}
	return (*Limiter)(l).reserve(n, l.prefix+" while fetching "+what)
}
