package requestlog

import (
	"context"
	"strings"

	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

const (
	// idKey is the metadata key in which Thanos's Querier sends the id of the query.
	idKey = "request-id"
	// Values from clients are truncated in log lines: ids and tenants, other headers, URLs.
	maxIDBytes     = 128
	maxHeaderBytes = 512
	maxURLBytes    = 2048
	// An error may repeat a value from the client, for instance a regular expression.
	maxErrorBytes = 4096
)

type identityContext struct{}

// identity is what lines say about a gRPC request. The goroutine of its handler alone uses it.
type identity struct {
	id       string
	describe func() []any // nil until the handler calls Describe
	slow     bool         // the handler has called Slow
	atFault  bool         // the handler has called AtFault
}

// ID returns the id of the gRPC request of ctx, "" if there is none.
func ID(ctx context.Context) string {
	if i, ok := ctx.Value(identityContext{}).(*identity); ok {
		return i.id
	}
	return ""
}

// Describe makes Outcomes add the result of describe, alternating keys and values, to the line of
// the gRPC request of ctx. Outcomes calls describe at most once, after the handler has returned.
// Call Describe from the goroutine of the handler. Without an id in ctx it has no effect.
func Describe(ctx context.Context, describe func() []any) {
	if i, ok := ctx.Value(identityContext{}).(*identity); ok {
		i.describe = describe
	}
}

// Slow makes Outcomes log the gRPC request of ctx as slow, whatever its duration is. Call it from
// the goroutine of the handler, at its end.
func Slow(ctx context.Context) {
	if i, ok := ctx.Value(identityContext{}).(*identity); ok {
		i.slow = true
	}
}

// slow reports whether the handler has called Slow.
func slow(ctx context.Context) bool {
	i, ok := ctx.Value(identityContext{}).(*identity)
	return ok && i.slow
}

// AtFault makes Outcomes log the failure of the gRPC request of ctx at warn, whatever its code is:
// larder caused it. Call it from the goroutine of the handler, at its end.
func AtFault(ctx context.Context) {
	if i, ok := ctx.Value(identityContext{}).(*identity); ok {
		i.atFault = true
	}
}

// atFault reports whether the handler has called AtFault.
func atFault(ctx context.Context) bool {
	i, ok := ctx.Value(identityContext{}).(*identity)
	return ok && i.atFault
}

// described returns what the handler has passed to Describe, nil if nothing.
func described(ctx context.Context) func() []any {
	if i, ok := ctx.Value(identityContext{}).(*identity); ok {
		return i.describe
	}
	return nil
}

// withID adds the id that the client has sent, or a new one.
func withID(ctx context.Context) context.Context {
	var id string
	if v := metadata.ValueFromIncomingContext(ctx, idKey); len(v) == 1 {
		id = bounded(v[0], maxIDBytes)
	}
	if id == "" {
		id = ulid.Make().String()
	}
	return context.WithValue(ctx, identityContext{}, &identity{id: id})
}

// bounded truncates a text from a client to most bytes and makes it valid UTF-8.
func bounded(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// IDUnary gives unary requests their ids. Install it before interceptors that log.
func IDUnary(
	ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler,
) (any, error) {
	return next(withID(ctx), req)
}

// IDStream gives streams their ids.
func IDStream(
	srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler,
) error {
	return next(srv, streamWithContext{ss, withID(ss.Context())})
}

type streamWithContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s streamWithContext) Context() context.Context { return s.ctx }
