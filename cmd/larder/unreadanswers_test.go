package main

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"larder/internal/inbound"
	"larder/internal/intake"
	"larder/internal/requestlog"
	"larder/internal/telemetry/telemetrytest"
	"larder/store/storepb"
)

// largeAnswers is a store whose label names are a mebibyte, which it holds until they were sent.
type largeAnswers struct {
	storepb.UnimplementedStoreServer
	messages  *intake.Account
	began     chan struct{}
	releases  chan struct{}
	withError bool
}

const largeAnswer = 1 << 20

func (s *largeAnswers) LabelNames(
	ctx context.Context,
	_ *storepb.LabelNamesRequest,
) (*storepb.LabelNamesResponse, error) {
	intake.Of(ctx, s.messages).UntilSent(largeAnswer, func() { s.releases <- struct{}{} })
	s.began <- struct{}{}
	if s.withError {
		return nil, status.Error(codes.Aborted, "of the handler")
	}
	return &storepb.LabelNamesResponse{Names: []string{strings.Repeat("a", largeAnswer)}}, nil
}

// deafConn reads nothing once it is deaf, so that the server's windows stay shut.
type deafConn struct {
	net.Conn
	deaf, closed chan struct{}
	once         *sync.Once
}

func (c deafConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	select {
	case <-c.deaf:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (c deafConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestAnswersThatAreNotRead are held, and let go when they are read, dropped, or their connection
// goes. When there are too many the connection with most of them is closed.
func TestAnswersThatAreNotRead(t *testing.T) {
	log := &telemetrytest.Buffer{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	s := &largeAnswers{
		messages: intake.NewAccount(
			0,
			nil,
		), began: make(chan struct{}, 10), releases: make(chan struct{}, 10),
	}
	conf := services{
		store: s, info: storepb.UnimplementedInfoServer{}, messages: s.messages, unsent: 5 * largeAnswer / 2,
	}
	requests := requestlog.New(nil, requestLogOptions(logger))
	srv, err := newRPCServer(
		grpcConfig{},
		conf,
		requests,
		logger,
		prometheus.NewRegistry(),
		noTracing(t),
	)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		o := inbound.Options{Requests: srv.open, Logger: logger, Server: "grpc"}
		served <- srv.Serve(inbound.New(l, o))
	}()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	dial := func(deaf chan struct{}) *grpc.ClientConn {
		conn, err := grpc.NewClient(
			l.Addr().String(),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(2*largeAnswer)),
			grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
				return deafConn{
					Conn:   c,
					deaf:   deaf,
					closed: make(chan struct{}),
					once:   &sync.Once{},
				}, err
			}),
		)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		conn.Connect()
		for state := conn.GetState(); state.String() != "READY"; state = conn.GetState() {
			conn.WaitForStateChange(t.Context(), state)
		}
		return conn
	}
	ask := func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := storepb.NewStoreClient(conn).LabelNames(ctx, &storepb.LabelNamesRequest{})
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	askAside := func(ctx context.Context, conn *grpc.ClientConn) {
		wg.Go(func() { _ = ask(ctx, conn) })
		<-s.began
	}
	none := func(when string) {
		t.Helper()
		select {
		case <-s.releases:
			t.Errorf("%s: an answer was let go", when)
		default:
		}
	}

	// Read.
	if err := ask(t.Context(), dial(make(chan struct{}))); err != nil {
		t.Fatal(err)
	}
	<-s.began
	<-s.releases

	// An error has no answer.
	s.withError = true
	if err := ask(t.Context(), dial(make(chan struct{}))); status.Code(err) != codes.Aborted {
		t.Errorf("got %v", err)
	}
	<-s.began
	<-s.releases
	s.withError = false

	// Not read, then dropped.
	deaf := make(chan struct{})
	conn := dial(deaf)
	close(deaf)
	ctx, cancel := context.WithCancel(t.Context())
	askAside(ctx, conn)
	none("not read")
	cancel()
	<-s.releases

	// Not read, then closed.
	askAside(t.Context(), conn)
	none("not read")
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	<-s.releases

	// Too many: two of one connection go for one of another.
	deaf = make(chan struct{})
	most, one := dial(deaf), dial(deaf)
	close(deaf)
	askAside(t.Context(), most)
	askAside(t.Context(), most)
	none("not read")
	askAside(t.Context(), one)
	<-s.releases
	<-s.releases
	none("of a connection with one answer")
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	<-s.releases
	_ = most.Close()
	srv.Stop() // the line is written by the handler of the request that was one too many
	if !strings.Contains(log.String(), "answers_unread") {
		t.Errorf("the log does not tell why:\n%s", log.String())
	}
}
