// Package flaky is a proxy between a Querier and a store that breaks calls when it is told to: with
// an error after a number of frames, by closing the connection, or by sending nothing more. It
// passes bytes on without decoding them. Therefore both sides see what a network or a dying server
// would show them.
package flaky

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The methods of a Fault.
const (
	Series    = "/thanos.Store/Series"
	Info      = "/thanos.info.Info/Info"
	AnyMethod = "*"
)

// Kind is the way in which a call breaks.
type Kind int

const (
	// Fail ends the call with Code.
	Fail Kind = iota
	// Cut closes the client's connections.
	Cut
	// Stall sends nothing more until the client gives up.
	Stall
)

// Fault is what happens to every call of a method.
type Fault struct {
	// Method is the full name of the method. Default Series.
	Method string
	Kind   Kind
	Code   codes.Code
	// After is the number of frames before the fault.
	After int
}

// Proxy is a running proxy.
type Proxy struct {
	Addr     string
	server   *grpc.Server
	upstream *grpc.ClientConn
	listener *listener
	served   chan error

	mu    sync.Mutex
	fault *Fault
	hits  int
}

// Start listens on a free loopback port for calls to the store at target.
func Start(target string) (*Proxy, error) { return StartAt("127.0.0.1:0", target) }

// StartAt is Start with a loopback address to listen on.
func StartAt(address, target string) (*Proxy, error) {
	upstream, err := grpc.NewClient(
		target, grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, errors.Join(err, upstream.Close())
	}
	p := &Proxy{
		Addr: l.Addr().
			String(),
		upstream: upstream, listener: &listener{Listener: l, open: map[net.Conn]bool{}},
		served: make(chan error, 1),
	}
	p.server = grpc.NewServer(
		grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(p.pass),
		grpc.MaxRecvMsgSize(1<<30), grpc.MaxSendMsgSize(1<<30),
	)
	go func() { p.served <- p.server.Serve(p.listener) }()
	return p, nil
}

// Break makes every later call of the method fail; nil heals the proxy. It returns how many calls
// the former fault has hit.
func (p *Proxy) Break(f *Fault) (hits int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	hits, p.fault, p.hits = p.hits, f, 0
	return hits
}

// Close ends all calls.
func (p *Proxy) Close() error {
	p.server.Stop()
	return errors.Join(<-p.served, p.upstream.Close())
}

func (p *Proxy) faultOf(method string) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.fault
	if f == nil || f.Method != AnyMethod && method != cmp.Or(f.Method, Series) {
		return nil
	}
	return f
}

func (p *Proxy) hit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hits++
}

// pass forwards one call. Every call of the StoreAPI and of Info has one message as its request.
func (p *Proxy) pass(_ any, down grpc.ServerStream) error {
	method, ok := grpc.MethodFromServerStream(down)
	if !ok {
		return status.Error(codes.Internal, "a call without a method")
	}
	ctx, cancel := context.WithCancel(down.Context())
	defer cancel()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, md.Copy())
	}
	up, err := p.upstream.NewStream(
		ctx, &grpc.StreamDesc{ServerStreams: true}, method, grpc.ForceCodec(raw{}),
		grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30),
	)
	if err != nil {
		return err
	}
	var msg []byte
	if err := down.RecvMsg(&msg); err != nil {
		return err
	}
	if err := up.SendMsg(&msg); err != nil {
		return err
	}
	if err := up.CloseSend(); err != nil {
		return err
	}
	fault := p.faultOf(method)
	for frames := 0; ; frames++ {
		if fault != nil && frames == fault.After {
			p.hit()
			return p.fail(ctx, fault)
		}
		if err := up.RecvMsg(&msg); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := down.SendMsg(&msg); err != nil {
			return err
		}
	}
}

func (p *Proxy) fail(ctx context.Context, f *Fault) error {
	switch f.Kind {
	case Cut:
		p.listener.cut()
		return status.Error(codes.Unavailable, "cut")
	case Stall:
		<-ctx.Done()
		return ctx.Err()
	default:
		return status.Error(f.Code, "the proxy was told to fail")
	}
}

// raw is a codec that does not touch the bytes. It has the name of the codec whose messages pass
// through.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (raw) Unmarshal(data []byte, v any) error {
	// The buffer is the transport's.
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func (raw) Name() string { return "proto" }

// listener remembers the connections that it has accepted.
type listener struct {
	net.Listener
	mu   sync.Mutex
	open map[net.Conn]bool
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[c] = true
	return c, nil
}

func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		// It is to break, not to end well.
		_ = c.Close()
	}
	clear(l.open)
}
