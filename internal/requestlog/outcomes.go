package requestlog

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

const (
	// In each outcomeInterval there are at most failureBurst lines for fast failures with the same
	// method and code, because a failing bucket fails every request, and at most slowBurst lines
	// for slow requests with the same method and code.
	outcomeInterval = 10 * time.Second
	failureBurst    = 10
	slowBurst       = 100
)

// Outcomes logs gRPC requests that failed or were slow, one line each, with what their handlers
// have described. Failures that larder or the bucket caused are logged at warn, and so are requests
// that did not end before their deadline, because a bucket that does not answer looks like that.
// Other slow requests are logged at info, whatever their code is, and other failures at debug.
// Lines above debug are limited. The next line of a kind counts those that were suppressed.
type Outcomes struct {
	opts Options

	mu    sync.Mutex // guards kinds
	kinds map[outcome]*burst
}

// outcome is a kind of lines.
type outcome struct {
	method string // a registered method
	code   codes.Code
	slow   bool
}

type burst struct {
	since      time.Time // beginning of the interval
	logged     int       // in the interval
	suppressed int       // since the last line
}

// NewOutcomes returns a log of outcomes. It does not depend on a Config.
func NewOutcomes(o Options) *Outcomes {
	return &Outcomes{opts: o, kinds: map[outcome]*burst{}}
}

// Unary logs unary calls. It must run inside of IDUnary.
func (o *Outcomes) Unary(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler,
) (any, error) {
	start := time.Now()
	resp, err := next(ctx, req)
	o.log(ctx, info.FullMethod, time.Since(start), err)
	return resp, err
}

// Stream logs streams. It must run inside of IDStream.
func (o *Outcomes) Stream(
	srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler,
) error {
	start := time.Now()
	err := next(srv, ss)
	o.log(ss.Context(), info.FullMethod, time.Since(start), err)
	return err
}

// log logs a request that ended after d with err.
func (o *Outcomes) log(ctx context.Context, method string, d time.Duration, err error) {
	if f := o.opts.Undescribed; f != nil && err != nil && described(ctx) == nil {
		f(ctx, method, d, err)
	}
	// Only requests that describe themselves are requests for data. Others, such as a Watch of the
	// health service, last as long as their clients like.
	late := described(ctx) != nil && (slow(ctx) || o.opts.Slow > 0 && d >= o.opts.Slow)
	code := status.Code(err)
	level, limit, msg := slog.LevelDebug, 0, "request failed"
	switch {
	case o.fault(ctx, method, code):
		if level, limit = slog.LevelWarn, failureBurst; late {
			limit = slowBurst
		}
	case late:
		level, limit, msg = slog.LevelInfo, slowBurst, "slow request"
	case code == codes.OK:
		return
	}
	if !o.opts.Logger.Enabled(ctx, level) {
		return
	}
	suppressed := 0
	if limit > 0 {
		var ok bool
		if suppressed, ok = o.admit(outcome{method, code, late}, limit, time.Now()); !ok {
			return
		}
	}
	args := []any{"method", method, "duration", d}
	if err != nil {
		args = append(args, "code", code.String(), "err", bounded(err.Error(), maxErrorBytes))
	}
	args = append(args, o.opts.fields(ctx)...)
	if p, ok := peer.FromContext(ctx); ok {
		args = append(args, "peer", p.Addr.String())
	}
	if describe := described(ctx); describe != nil {
		args = append(args, describe()...)
	}
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	o.opts.Logger.Log(ctx, level, msg, args...)
}

// fault reports whether larder or the bucket may have caused a failure.
func (o *Outcomes) fault(ctx context.Context, method string, code codes.Code) bool {
	switch code {
	case codes.Internal, codes.Unknown, codes.Aborted, codes.DataLoss, codes.DeadlineExceeded:
		return true
	case codes.Unavailable:
		return !slices.Contains(o.opts.Polled, method)
	case codes.OK:
		return false
	}
	return atFault(ctx)
}

// admit reports whether a line may be logged, and how many of its kind were suppressed since the
// last line.
func (o *Outcomes) admit(kind outcome, limit int, now time.Time) (suppressed int, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.kinds[kind]
	if b == nil {
		b = &burst{}
		o.kinds[kind] = b
	}
	if now.Sub(b.since) >= outcomeInterval {
		b.since, b.logged = now, 0
	}
	if b.logged >= limit {
		b.suppressed++
		return 0, false
	}
	b.logged++
	suppressed, b.suppressed = b.suppressed, 0
	return suppressed, true
}
