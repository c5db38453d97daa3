package requestlog

import (
	"context"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// Options configures a Log and Outcomes. Only Logger is required.
type Options struct {
	Logger *slog.Logger
	// Slow is the duration from which Outcomes logs a request as slow. Default 0: only those that
	// the function Slow was called for.
	Slow time.Duration
	// Polled has the full names of methods that clients poll. Their code Unavailable says that the
	// process is starting or stopping, which is not a failure.
	Polled []string
	// Tenant returns the tenant of the gRPC request of ctx. nil omits the tenant.
	Tenant func(ctx context.Context) string
	// Undescribed, if not nil, is called for each gRPC request that failed after d without a
	// description: its handler rejected it before it began. It must not block.
	Undescribed func(ctx context.Context, method string, d time.Duration, err error)
}

// Log logs requests as its Config says.
type Log struct {
	conf  atomic.Pointer[Config]
	http  *slog.Logger
	unary map[decision]grpc.UnaryServerInterceptor
	// unary and stream have an interceptor for each decision except never.
	stream map[decision]grpc.StreamServerInterceptor
}

// New returns a Log with the configuration conf.
func New(conf *Config, o Options) *Log {
	l := &Log{
		http: o.Logger.With(
			"service", "http/server", "component", "store", "protocol", "http", "http.component",
			"server",
		),
		unary:  map[decision]grpc.UnaryServerInterceptor{},
		stream: map[decision]grpc.StreamServerInterceptor{},
	}
	l.Set(conf)
	rpc := o.Logger.With("service", "gRPC/server", "component", "store")
	write := logging.LoggerFunc(
		func(ctx context.Context, level logging.Level, msg string, fields ...any) {
			rpc.Log(ctx, slog.Level(level), msg, numbers(fields)...) // the levels equal slog's
		},
	)
	for d, events := range map[decision][]logging.LoggableEvent{
		atEnd: {logging.FinishCall}, atStartAndEnd: {logging.StartCall, logging.FinishCall},
	} {
		opts := []logging.Option{
			logging.WithLogOnEvents(events...),
			logging.WithLevels(levelOf),
			logging.WithFieldsFromContext(o.fields),
		}
		l.unary[d] = logging.UnaryServerInterceptor(write, opts...)
		l.stream[d] = logging.StreamServerInterceptor(write, opts...)
	}
	return l
}

// numbers converts grpc.time_ms, which the middleware formats as text, to a number.
func numbers(fields []any) []any {
	for i := 0; i+1 < len(fields); i += 2 {
		if text, ok := fields[i+1].(string); ok && fields[i] == "grpc.time_ms" {
			if ms, err := strconv.ParseFloat(text, 64); err == nil {
				fields[i+1] = ms
			}
		}
	}
	return fields
}

// Set replaces the configuration for requests that begin afterwards. nil logs nothing.
func (l *Log) Set(conf *Config) {
	if conf == nil {
		conf = &Config{}
	}
	l.conf.Store(conf)
}

// levelOf returns the level of a finished call, same as in Thanos.
func levelOf(c codes.Code) logging.Level {
	switch c {
	case codes.Unknown, codes.Unimplemented, codes.Internal, codes.DataLoss:
		return logging.LevelError
	default:
		return logging.LevelDebug
	}
}

// fields returns the fields that identify a request.
func (o Options) fields(ctx context.Context) logging.Fields {
	f := logging.Fields{"requestID", ID(ctx)}
	if o.Tenant != nil {
		f = append(f, "tenant", bounded(o.Tenant(ctx), maxIDBytes))
	}
	if sc := trace.SpanContextFromContext(ctx); sc.IsSampled() {
		f = append(f, "traceID", sc.TraceID().String())
	}
	return f
}

// decideGRPC returns when to log a call of a method ("/service/method").
func (c *Config) decideGRPC(method string) decision {
	if len(c.grpc.only) > 0 && !c.grpc.only[method] {
		return never
	}
	return c.grpc.decision
}

// Unary logs unary calls.
func (l *Log) Unary(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler,
) (any, error) {
	if d := l.conf.Load().decideGRPC(info.FullMethod); d != never {
		return l.unary[d](ctx, req, info, next)
	}
	return next(ctx, req)
}

// Stream logs streams.
func (l *Log) Stream(
	srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler,
) error {
	if d := l.conf.Load().decideGRPC(info.FullMethod); d != never {
		return l.stream[d](srv, ss, info, next)
	}
	return next(srv, ss)
}
