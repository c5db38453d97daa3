package intake

import (
	"cmp"
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"larder/internal/inbound"
)

// Server is the part of *grpc.Server that registers services.
type Server interface {
	grpc.ServiceRegistrar
	GetServiceInfo() map[string]grpc.ServiceInfo
}

// Registrar registers services so that their messages are reserved in an account. The server's
// codec must support storepb.Receiver and storepb.Answer, same as storepb.Codec.
type Registrar struct {
	Server
	Account *Account
	// MaxMessageBytes bounds the decompressed size of a message of these services. With 0, only the
	// bound of the server applies.
	MaxMessageBytes int
	// MaxAnswerBytes bounds the answer of a unary request, 0: only the bound of the server applies.
	// With the bound of the server here, interceptors see that an answer exceeds it.
	MaxAnswerBytes int64
	// Requests records the end of requests; nil for none.
	Requests *inbound.Requests
	// Around, if not nil, runs the handler of each stream, with a context that may end it early.
	Around func(ctx context.Context, handler func(context.Context) error) error
}

// RegisterService implements grpc.ServiceRegistrar.
func (r Registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	bounded := *desc
	bounded.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, m := range desc.Methods {
		bounded.Methods[i] = grpc.MethodDesc{MethodName: m.MethodName, Handler: r.unary(m)}
	}
	bounded.Streams = make([]grpc.StreamDesc, len(desc.Streams))
	for i, s := range desc.Streams {
		bounded.Streams[i] = s
		bounded.Streams[i].Handler = r.stream(s.Handler)
	}
	r.Server.RegisterService(&bounded, impl)
}

func (r Registrar) unary(m grpc.MethodDesc) grpc.MethodHandler {
	return func(
		srv any, ctx context.Context, dec func(any) error, next grpc.UnaryServerInterceptor,
	) (any, error) {
		failed := inbound.Began(ctx)
		held := r.Account.Open(ctx)
		held.registered, held.unary = r.Requests != nil, true
		defer held.Close()
		ctx = context.WithValue(ctx, reservationKey{}, held)
		// Without a message grpc would not call the interceptors. They are called, so that they log
		// and count the request; the handler is not.
		var refused error
		decode := func(v any) error {
			if refused = r.decode(ctx, dec, v, held); refused != nil {
				failed(status.Code(refused))
			}
			return nil
		}
		intercept := func(
			ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
		) (any, error) {
			call := func(ctx context.Context, req any) (any, error) {
				if refused != nil {
					return nil, refused
				}
				resp, err := handler(ctx, req)
				if err == nil {
					err = r.check(&answer{payload: resp.(proto.Message), encoded: held.encoded})
				}
				return resp, err
			}
			if next == nil {
				return call(ctx, req)
			}
			return next(ctx, req, info, call)
		}
		resp, err := m.Handler(srv, ctx, decode, intercept)
		if err != nil {
			if held.answerSent != nil {
				held.answerSent()
			}
			return nil, err
		}
		a := &answer{payload: resp.(proto.Message), encoded: held.encoded}
		if r.Requests != nil {
			r.Requests.Ended(ctx, a.size())
			if held.answerSent != nil {
				a.sent = r.Requests.Sending(ctx, held.answerSent)
			}
		}
		if a.encoded == nil && a.sent == nil {
			return resp, nil
		}
		return a, nil
	}
}

// check returns an error if an answer is too large.
func (r Registrar) check(a *answer) error {
	if r.MaxAnswerBytes == 0 {
		return nil
	}
	if n := a.size(); n > r.MaxAnswerBytes {
		return status.Errorf(codes.ResourceExhausted,
			"the answer has %d bytes: a message of gRPC has at most %d (ask for less)", n,
			r.MaxAnswerBytes)
	}
	return nil
}

func (r Registrar) stream(next grpc.StreamHandler) grpc.StreamHandler {
	return func(srv any, ss grpc.ServerStream) error {
		held := r.Account.Open(ss.Context())
		defer held.Close()
		handler := func(ctx context.Context) error {
			ctx = context.WithValue(ctx, reservationKey{}, held)
			s := &stream{ServerStream: ss, ctx: ctx, registrar: r, held: held}
			if r.Requests != nil {
				defer func() { r.Requests.Ended(ctx, inbound.Tail(s.sent, s.last)) }()
			}
			return next(srv, s)
		}
		if r.Around == nil {
			return handler(ss.Context())
		}
		return r.Around(ss.Context(), handler)
	}
}

type stream struct {
	grpc.ServerStream
	ctx       context.Context
	registrar Registrar
	held      *Reservation
	// bytes of all sent messages, and of the last one
	sent, last int64
}

// SendMsg counts the bytes of the message and sends it.
func (s *stream) SendMsg(m any) error {
	switch m := m.(type) {
	case interface{ Size() int }: // a frame; its size is 0 after it was sent
		s.last = int64(m.Size())
	case proto.Message:
		s.last = int64(proto.Size(m))
	}
	s.sent += s.last
	return s.ServerStream.SendMsg(m)
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) RecvMsg(m any) error {
	return s.registrar.decode(s.ctx, s.ServerStream.RecvMsg, m, s.held)
}

// answer implements storepb.Answer.
type answer struct {
	payload proto.Message
	encoded [][]byte // instead of payload, unless it is nil
	sent    func()   // may be nil
}

func (a *answer) Payload() proto.Message { return a.payload }
func (a *answer) Encoded() [][]byte      { return a.encoded }

func (a *answer) Sent() {
	if a.sent != nil {
		a.sent()
	}
}

func (a *answer) size() (n int64) {
	if a.encoded == nil {
		return int64(proto.Size(a.payload))
	}
	for _, part := range a.encoded {
		n += int64(len(part))
	}
	return n
}

// decode receives a message into v with dec.
func (r Registrar) decode(
	ctx context.Context, dec func(any) error, v any, held *Reservation,
) error {
	m := &message{target: v, held: held, max: r.MaxMessageBytes}
	err := dec(m)
	inbound.Received(ctx, m.bytes, compressed(ctx))
	return cmp.Or(err, m.refused)
}

// compressed reports whether a request says that its messages are compressed.
func compressed(ctx context.Context) bool {
	s, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ RecvCompress() string })
	return ok && s.RecvCompress() != "" && s.RecvCompress() != encoding.Identity
}

// message implements storepb.Receiver. It reserves the memory of a message before it is decoded.
type message struct {
	target  any
	held    *Reservation
	max     int
	bytes   int
	refused error // with a gRPC status
}

func (m *message) Target() any { return m.target }

// Accept reserves the memory of a message with the given number of bytes and fields.
func (m *message) Accept(bytes, fields int) bool {
	m.bytes = bytes
	if m.max > 0 && bytes > m.max {
		m.refused = status.Errorf(codes.ResourceExhausted,
			"the message has %d bytes: this service accepts at most %d", bytes, m.max)
	} else {
		m.refused = m.held.receive(bytes, fields)
	}
	return m.refused == nil
}
