package inbound

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"
)

const (
	// maxRequests is how many requests may be open at once, over all connections: each costs some 15 KiB before it waits for anything.
	maxRequests           = 8192
	defaultReceiveTimeout = 10 * time.Second
)

// Requests look after the requests of a gRPC server from their headers on, which is long before a handler, or a limit of one, hears of them: the
// connection of a client that opens too many, or that does not finish what it has begun, is closed. Its Tap, Unary and Stream all go into the server's
// options. The zero value works.
type Requests struct {
	// ReceiveTimeout is how long a request may take from its headers to the end of its message; default 10 seconds. With the rate at which a
	// client's bytes are read (Options.ReadBytes) it bounds what lies there half received.
	ReceiveTimeout time.Duration

	open atomic.Int64
}

// arrivalKey is the key of the timer of a request's arrival in its context.
type arrivalKey struct{}

// Tap is for grpc.InTapHandle.
func (r *Requests) Tap(ctx context.Context, _ *tap.Info) (context.Context, error) {
	n := r.open.Add(1)
	context.AfterFunc(ctx, func() { r.open.Add(-1) }) // grpc ends the context with the request
	var c *Conn
	if p, ok := peer.FromContext(ctx); ok {
		c = From(p.Addr)
	}
	if c == nil {
		return ctx, nil
	}
	if n > maxRequests {
		// To refuse this request alone would be cheaper, but grpc keeps the timers of those that it refuses here.
		c.hangUp(tooManyRequests)
	}
	timer := time.AfterFunc(cmp.Or(r.ReceiveTimeout, defaultReceiveTimeout), func() {
		if ctx.Err() == nil {
			c.hangUp(notReceived)
		}
	})
	return context.WithValue(ctx, arrivalKey{}, timer), nil
}

func arrived(ctx context.Context) {
	if timer, ok := ctx.Value(arrivalKey{}).(*time.Timer); ok {
		timer.Stop()
	}
}

// Unary notes that a request has arrived.
func (r *Requests) Unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	arrived(ctx)
	return next(ctx, req)
}

// Stream notes when the first message of a request has arrived.
func (r *Requests) Stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return next(srv, &receiving{ServerStream: ss})
}

type receiving struct{ grpc.ServerStream }

func (r *receiving) RecvMsg(m any) error {
	err := r.ServerStream.RecvMsg(m)
	arrived(r.Context())
	return err
}
