package requestlog

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// failureBurst bounds the lines for failures with the same method and code in each
	// failureInterval, because a failing bucket fails every request.
	failureBurst    = 10
	failureInterval = 10 * time.Second
)

// Failures logs failed gRPC requests: at warn if larder or the bucket caused the failure, at debug
// if the client did. Lines at warn are limited. The next line of a kind counts those that were
// suppressed.
type Failures struct {
	opts Options

	mu    sync.Mutex // guards kinds
	kinds map[failure]*failures
}

type failure struct {
	method string // a registered method
	code   codes.Code
}

type failures struct {
	since      time.Time // beginning of the interval
	logged     int       // in the interval
	suppressed int       // since the last line
}

// NewFailures returns a log of failures. It does not depend on a Config.
func NewFailures(o Options) *Failures {
	return &Failures{opts: o, kinds: map[failure]*failures{}}
}

// Unary logs unary calls that fail.
func (f *Failures) Unary(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler,
) (any, error) {
	resp, err := next(ctx, req)
	f.log(ctx, info.FullMethod, err)
	return resp, err
}

// Stream logs streams that fail.
func (f *Failures) Stream(
	srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler,
) error {
	err := next(srv, ss)
	f.log(ss.Context(), info.FullMethod, err)
	return err
}

func (f *Failures) log(ctx context.Context, method string, err error) {
	if err == nil {
		return
	}
	level, suppressed := slog.LevelDebug, 0
	code := status.Code(err)
	switch code {
	case codes.Internal, codes.Unknown, codes.Aborted, codes.DataLoss:
		level = slog.LevelWarn
		var ok bool
		if suppressed, ok = f.admit(failure{method, code}, time.Now()); !ok {
			return
		}
	}
	args := append(
		[]any{"method", method, "err", bounded(err.Error(), maxErrorBytes)},
		f.opts.fields(ctx)...)
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	f.opts.Logger.Log(ctx, level, "request failed", args...)
}

// admit reports whether a failure may be logged, and how many of its kind were suppressed since the
// last line.
func (f *Failures) admit(kind failure, now time.Time) (suppressed int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.kinds[kind]
	if k == nil {
		k = &failures{}
		f.kinds[kind] = k
	}
	if now.Sub(k.since) >= failureInterval {
		k.since, k.logged = now, 0
	}
	if k.logged == failureBurst {
		k.suppressed++
		return 0, false
	}
	k.logged++
	suppressed, k.suppressed = k.suppressed, 0
	return suppressed, true
}
