package requestlog

import (
	"context"
	"strings"

	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

const (
	// idKey is the metadata key under which Thanos's Querier sends the id of the query.
	idKey = "request-id"
	// What a client chooses is cut in log lines: an id or tenant, another header, an address with
	// its query.
	maxIDBytes     = 128
	maxHeaderBytes = 512
	maxURLBytes    = 2048
	// An error may repeat what the client has sent: a regular expression, say.
	maxErrorBytes = 4096
)

type idContext struct{}

// ID returns the id of the gRPC request that ctx belongs to, "" outside of one.
func ID(ctx context.Context) string {
	id, _ := ctx.Value(idContext{}).(string)
	return id
}

// withID takes the id that the client has sent, or makes one.
func withID(ctx context.Context) context.Context {
	var id string
	if v := metadata.ValueFromIncomingContext(ctx, idKey); len(v) == 1 {
		id = bounded(v[0], maxIDBytes)
	}
	if id == "" {
		id = ulid.Make().String()
	}
	return context.WithValue(ctx, idContext{}, id)
}

// bounded returns a text that a client chose as it may stand in a log line: not longer than most
// bytes, and UTF-8.
func bounded(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// IDUnary gives requests their ids. It comes before all that logs.
func IDUnary(
	ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler,
) (any, error) {
	return next(withID(ctx), req)
}

// IDStream is IDUnary for streams.
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
