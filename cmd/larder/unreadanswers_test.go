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
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"larder/internal/inbound"
	"larder/internal/intake"
	"larder/internal/requestlog"
	"larder/internal/telemetry/telemetrytest"
	"larder/store/storepb"
)

// answering is a store behind a listener. Its label names have a given size and stay reserved until
// they were sent.
type answering struct {
	storepb.UnimplementedStoreServer
	size      int
	withError bool
	messages  *intake.Account
	began     chan struct{} // of each handler
	releases  chan struct{} // of each answer

	address string
	log     *telemetrytest.Buffer
	reg     *prometheus.Registry
	stop    func()
}

func (s *answering) LabelNames(
	ctx context.Context, _ *storepb.LabelNamesRequest,
) (*storepb.LabelNamesResponse, error) {
	intake.Of(ctx, s.messages).UntilSent(func() { s.releases <- struct{}{} })
	s.began <- struct{}{}
	if s.withError {
		return nil, status.Error(codes.Aborted, "of the handler")
	}
	return &storepb.LabelNamesResponse{Names: []string{strings.Repeat("a", s.size)}}, nil
}

func serveAnswers(t *testing.T, size int, bounds services) *answering {
	t.Helper()
	s := &answering{
		size: size, messages: intake.NewAccount(0, nil),
		began: make(chan struct{}, 1000), releases: make(chan struct{}, 1000),
		log: &telemetrytest.Buffer{}, reg: prometheus.NewRegistry(),
	}
	logger := slog.New(slog.NewTextHandler(s.log, nil))
	bounds.store, bounds.info, bounds.messages = s, storepb.UnimplementedInfoServer{}, s.messages
	logs := (&requestLogConfig{}).options(logger)
	requests := requestlog.New(nil, logs)
	conf := grpcConfig{reflection: true}
	srv, err := newRPCServer(conf, bounds, requests, logs, s.reg, noTracing(t))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address, s.stop = l.Addr().String(), srv.Stop
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
	return s
}

// deafConn stops reading once it is deaf, so that the server's windows stay closed.
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

// dial connects a client, which reads until deaf is closed.
func (s *answering) dial(t *testing.T, deaf chan struct{}) *grpc.ClientConn {
	t.Helper()
	dialer := func(ctx context.Context, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		closed := make(chan struct{})
		return deafConn{Conn: c, deaf: deaf, closed: closed, once: &sync.Once{}}, err
	}
	conn, err := grpc.NewClient(s.address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(2*s.size+1000)),
		grpc.WithContextDialer(dialer))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		conn.WaitForStateChange(t.Context(), state)
	}
	return conn
}

func ask(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := storepb.NewStoreClient(conn).LabelNames(ctx, &storepb.LabelNamesRequest{})
	return err
}

// TestAnswersThatAreNotRead checks that answers stay reserved until they are read or dropped, or
// their connection is closed. With too many of them, the connection with most is closed.
func TestAnswersThatAreNotRead(t *testing.T) {
	const size = 1 << 20
	s := serveAnswers(t, size, services{unsent: 5 * size / 2})
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
	reads := s.dial(t, make(chan struct{}))
	if err := ask(t.Context(), reads); err != nil {
		t.Fatal(err)
	}
	<-s.began
	<-s.releases

	// An error has no answer.
	s.withError = true
	if err := ask(t.Context(), reads); status.Code(err) != codes.Aborted {
		t.Errorf("got %v", err)
	}
	<-s.began
	<-s.releases
	s.withError = false

	// Not read, then dropped. What another connection is answered meanwhile gives a wrong release
	// time to show.
	deaf := make(chan struct{})
	conn := s.dial(t, deaf)
	close(deaf)
	ctx, cancel := context.WithCancel(t.Context())
	askAside(ctx, conn)
	for range 20 {
		if err := ask(t.Context(), reads); err != nil {
			t.Fatal(err)
		}
		<-s.began
		<-s.releases
	}
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

	// Too many, the largest left out: three of one connection go for one of another.
	deaf = make(chan struct{})
	most, one := s.dial(t, deaf), s.dial(t, deaf)
	close(deaf)
	askAside(t.Context(), most)
	askAside(t.Context(), most)
	askAside(t.Context(), most)
	none("not read")
	askAside(t.Context(), one)
	<-s.releases
	<-s.releases
	<-s.releases
	none("of a connection with one answer")
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	<-s.releases
	_ = most.Close()
	s.stop() // the line is written by the handler of the request that was one too many
	if !strings.Contains(s.log.String(), "answers_unread") {
		t.Errorf("the log does not tell why:\n%s", s.log.String())
	}
}

// TestManyAnswersThatAreRead checks that a client that reads may have more answers than one that
// does not.
func TestManyAnswersThatAreRead(t *testing.T) {
	const size, clients, each = 70_000, 32, 100
	s := serveAnswers(t, size, services{unsent: clients * size / 3})
	conn := s.dial(t, make(chan struct{}))
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range each {
				if err := ask(t.Context(), conn); err != nil {
					t.Error(err)
					return
				}
				<-s.began
				<-s.releases
			}
		})
	}
	wg.Wait()
}

// TestManyAnswersThatAreNotRead: their handlers have returned, so that no request is open, and
// their bytes are few. Each still holds a stream of grpc's.
func TestManyAnswersThatAreNotRead(t *testing.T) {
	const size = 70_000 // beyond the window of a stream
	s := serveAnswers(t, size, services{unsent: 1 << 40})
	deaf := make(chan struct{})
	conn := s.dial(t, deaf)
	close(deaf)
	ended := make(chan error, 600)
	for range 600 {
		go func() { ended <- ask(t.Context(), conn) }()
	}
	for range 600 {
		<-s.began
	}
	for range 600 {
		<-s.releases // larder has closed the connection, which is too deaf to notice
	}
	_ = conn.Close()
	for range 600 {
		<-ended
	}
	if !strings.Contains(s.log.String(), "answers_unread") {
		t.Errorf("the log does not tell why:\n%s", s.log.String())
	}
}

// TestARefusalIsNoDrop checks that rejected requests do not count as dropped.
func TestARefusalIsNoDrop(t *testing.T) {
	s := serveAnswers(t, 1, services{})
	client := healthpb.NewHealthClient(s.dial(t, make(chan struct{})))
	for _, size := range []int{5000, 10} { // too large, and of no service
		req := &healthpb.HealthCheckRequest{Service: strings.Repeat("a", size)}
		for range 2500 {
			if _, err := client.Check(t.Context(), req); status.Code(err) == codes.Unavailable {
				t.Fatal(err)
			}
		}
	}
	if strings.Contains(s.log.String(), "connection closed because of its client") {
		t.Errorf("the connection of an honest client was closed:\n%s", s.log.String())
	}
}

// TestAnIdleStreamMakesNoMessageIncomplete checks that complete messages are not counted while
// another stream waits for its next one.
func TestAnIdleStreamMakesNoMessageIncomplete(t *testing.T) {
	s := serveAnswers(t, 1, services{incomplete: 1 << 20})
	conn := s.dial(t, make(chan struct{}))
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	req := &storepb.LabelNamesRequest{WithoutReplicaLabels: []string{strings.Repeat("a", 50_000)}}
	for range 100 {
		if _, err := storepb.NewStoreClient(conn).LabelNames(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		<-s.releases
	}
}

// TestADropBeforeTheMessageCounts drops requests before their message has arrived. grpc calls the
// handler of a unary request before that.
func TestADropBeforeTheMessageCounts(t *testing.T) {
	s := serveAnswers(t, 1, services{})
	conn := s.dial(t, make(chan struct{}))
	desc := &grpc.StreamDesc{ClientStreams: true}
	for range 5000 {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := conn.NewStream(ctx, desc, storepb.Store_LabelNames_FullMethodName)
		if err == nil {
			// What is answered on the connection came after the request that is dropped now.
			_, err = healthpb.NewHealthClient(conn).
				Check(t.Context(), &healthpb.HealthCheckRequest{})
		}
		cancel()
		if err != nil {
			break
		}
	}
	for range 1000 {
		if strings.Contains(s.log.String(), "requests_dropped") {
			return
		}
		_, _ = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	}
	t.Errorf("the connections of a client that drops its requests are not closed:\n%s", s.log.String())
}
