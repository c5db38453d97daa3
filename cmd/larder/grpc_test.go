package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"larder/internal/activity"
	"larder/internal/intake"
	"larder/internal/requestlog"
	"larder/internal/telemetry"
	"larder/internal/telemetry/telemetrytest"
	"larder/internal/web"
	"larder/store/storepb"
)

// fakeStore answers with its functions.
type fakeStore struct {
	storepb.UnimplementedStoreServer
	storepb.UnimplementedInfoServer
	series func(storepb.Store_SeriesServer) error
}

func (f *fakeStore) Series(_ *storepb.SeriesRequest, stream storepb.Store_SeriesServer) error {
	return f.series(stream)
}

func (f *fakeStore) LabelNames(
	context.Context, *storepb.LabelNamesRequest,
) (*storepb.LabelNamesResponse, error) {
	panic("no shelf")
}

func (f *fakeStore) Info(context.Context, *storepb.InfoRequest) (*storepb.InfoResponse, error) {
	return &storepb.InfoResponse{ComponentType: "store"}, nil
}

type rpcFixture struct {
	srv     *rpcServer
	address string
	conn    *grpc.ClientConn
	reg     *prometheus.Registry
	log     *telemetrytest.Buffer
	logger  *slog.Logger
	served  chan error

	activity *activity.Log

	listener closingListener
}

// closingListener signals when it is closed, which is the beginning of a stop.
type closingListener struct {
	net.Listener
	once   *sync.Once
	closed chan struct{}
}

func (l closingListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// startRPC serves store. The server stops with the test, unless stop was called before.
func startRPC(
	t *testing.T, conf grpcConfig, store *fakeStore, tracing *telemetry.Tracing,
	creds credentials.TransportCredentials,
) *rpcFixture {
	t.Helper()
	f := &rpcFixture{
		reg:    prometheus.NewRegistry(),
		log:    &telemetrytest.Buffer{},
		served: make(chan error, 1), activity: activity.New(),
	}
	f.logger = slog.New(slog.NewTextHandler(f.log, nil))
	logs := (&requestLogConfig{}).options(f.logger)
	logs.Undescribed = rejected(f.activity)
	requests := requestlog.New(nil, logs)
	var err error
	s := services{store: store, info: store, messages: intake.NewAccount(0, f.reg)}
	if f.srv, err = newRPCServer(conf, s, requests, logs, f.reg, tracing); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.address = l.Addr().String()
	f.listener = closingListener{l, &sync.Once{}, make(chan struct{})}
	go func() { f.served <- f.srv.Serve(f.listener) }()
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	if f.conn, err = grpc.NewClient(f.address, grpc.WithTransportCredentials(creds)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.conn.Close(); err != nil {
			t.Error(err)
		}
		f.srv.Stop()
		if err := <-f.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return f
}

func noTracing(t *testing.T) *telemetry.Tracing {
	t.Helper()
	tr, err := telemetry.NewTracing(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestPanicIsThatRequestsError(t *testing.T) {
	f := startRPC(
		t, grpcConfig{},
		&fakeStore{series: func(storepb.Store_SeriesServer) error { panic("no bread") }},
		noTracing(t), nil,
	)
	client := storepb.NewStoreClient(f.conn)

	_, err := client.LabelNames(t.Context(), &storepb.LabelNamesRequest{})
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "no shelf") {
		t.Errorf("unary: got %v", err)
	}
	stream, err := client.Series(t.Context(), &storepb.SeriesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Internal ||
		!strings.Contains(err.Error(), "no bread") {
		t.Errorf("stream: got %v", err)
	}
	if _, err := storepb.NewInfoClient(f.conn).
		Info(t.Context(), &storepb.InfoRequest{}); err != nil {
		t.Errorf("after the panics: %v", err)
	}

	want := `
# HELP grpc_req_panics_recovered_total Total number of gRPC requests recovered from internal panic.
# TYPE grpc_req_panics_recovered_total counter
grpc_req_panics_recovered_total 2
`
	if err := testutil.GatherAndCompare(f.reg, strings.NewReader(want),
		"grpc_req_panics_recovered_total"); err != nil {
		t.Error(err)
	}
	f.srv.stop(time.Minute, f.logger) // the stream's end is counted after the client has seen it
	for _, want := range []string{
		`grpc_server_handled_total{grpc_code="Internal",grpc_method="Series",grpc_service="thanos.Store",grpc_type="server_stream"} 1`,
		`grpc_server_handled_total{grpc_code="Internal",grpc_method="LabelNames",grpc_service="thanos.Store",grpc_type="unary"} 1`,
		`grpc_server_started_total{grpc_method="LabelValues",grpc_service="thanos.Store",grpc_type="unary"} 0`,
		`grpc_server_handling_seconds_count{grpc_method="Info",grpc_service="thanos.info.Info",grpc_type="unary"} 1`,
	} {
		if !strings.Contains(exposition(t, f.reg), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if got := strings.Count(f.log.String(), "level=WARN"); got != 2 {
		t.Errorf("got %d warnings, want 2:\n%s", got, f.log)
	}
}

// TestMessagesThatAreRefusedAreListed sends requests that are too large for gRPC, which no handler
// sees. They are among the recent failures, and are counted.
func TestMessagesThatAreRefusedAreListed(t *testing.T) {
	f := startRPC(t, grpcConfig{}, &fakeStore{}, noTracing(t), nil)
	client := storepb.NewStoreClient(f.conn)
	large := strings.Repeat("a", maxRequestBytes)
	_, err := client.LabelValues(t.Context(), &storepb.LabelValuesRequest{Label: large})
	if status.Code(err) != codes.ResourceExhausted {
		t.Fatal(err)
	}
	stream, err := client.Series(t.Context(), &storepb.SeriesRequest{
		Matchers: []*storepb.LabelMatcher{{Name: large}},
	})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Fatal(err)
	}
	f.srv.stop(time.Minute, f.logger) // the stream's end is noted after the client has seen it
	metrics := exposition(t, f.reg)
	var methods []string
	for _, e := range f.activity.Failures() {
		methods = append(methods, e.Method)
		if e.Code != "ResourceExhausted" || !strings.Contains(e.Err, "larger than max") ||
			!strings.HasPrefix(e.Peer, "127.0.0.1:") {
			t.Errorf("a failure is listed as %+v", e)
		}
		want := `grpc_server_handled_total{grpc_code="ResourceExhausted",grpc_method="` + e.Method +
			`",grpc_service="thanos.Store",grpc_type="`
		if !regexp.MustCompile(regexp.QuoteMeta(want) + `[a-z_]+"} 1`).MatchString(metrics) {
			t.Errorf("metrics lack %s", want)
		}
	}
	slices.Sort(methods)
	if !slices.Equal(methods, []string{"LabelValues", "Series"}) {
		t.Errorf("the failures of %v are listed", methods)
	}
}

func TestServicesByReflection(t *testing.T) {
	f := startRPC(t, grpcConfig{reflection: true}, &fakeStore{}, noTracing(t), nil)
	stream, err := reflectionpb.NewServerReflectionClient(f.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(
		&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range resp.GetListServicesResponse().Service {
		got = append(got, s.Name)
	}
	slices.Sort(got)
	want := []string{
		"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
		"grpc.reflection.v1alpha.ServerReflection", "thanos.Store", "thanos.info.Info",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReflectionCanBeSwitchedOff(t *testing.T) {
	f := startRPC(t, grpcConfig{}, &fakeStore{}, noTracing(t), nil)
	stream, err := reflectionpb.NewServerReflectionClient(f.conn).ServerReflectionInfo(t.Context())
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("got %v, want Unimplemented", err)
	}
}

// TestWatchersTakeNoPlaceOfRequests has a client that opens as many Health watches as it can.
func TestWatchersTakeNoPlaceOfRequests(t *testing.T) {
	f := startRPC(t, grpcConfig{}, &fakeStore{}, noTracing(t), nil)
	client := healthpb.NewHealthClient(f.conn)
	refused := 0
	for range 300 {
		stream, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		switch status.Code(err) {
		case codes.OK:
		case codes.ResourceExhausted:
			refused++
		default:
			t.Fatal(err)
		}
	}
	if refused != 300-256 {
		t.Errorf("%d of 300 were refused, want 44", refused)
	}
	info := storepb.NewInfoClient(f.conn)
	if _, err := info.Info(t.Context(), &storepb.InfoRequest{}); err != nil {
		t.Errorf("a request of Info: %v", err)
	}
}

func TestHealth(t *testing.T) {
	f := startRPC(t, grpcConfig{}, &fakeStore{}, noTracing(t), nil)
	check := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, service := range []string{"", "thanos.Store", "thanos.info.Info"} {
			resp, err := healthpb.NewHealthClient(f.conn).
				Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
			if err != nil || resp.Status != want {
				t.Errorf("%q: got %v, %v, want %v", service, resp.GetStatus(), err, want)
			}
		}
	}
	check(healthpb.HealthCheckResponse_NOT_SERVING)
	f.srv.setReady(true)
	check(healthpb.HealthCheckResponse_SERVING)
	f.srv.setReady(false)
	check(healthpb.HealthCheckResponse_NOT_SERVING)
}

func TestInfoWhenReady(t *testing.T) {
	ready := false
	s := infoWhenReady{&fakeStore{}, func() bool { return ready }}
	if _, err := s.Info(t.Context(), &storepb.InfoRequest{}); status.Code(
		err,
	) != codes.Unavailable {
		t.Errorf("not ready: got %v, want Unavailable", err)
	}
	ready = true
	if _, err := s.Info(t.Context(), &storepb.InfoRequest{}); err != nil {
		t.Error(err)
	}
}

// TestGracefulStop checks that a stream that runs when the stop begins can finish.
func TestGracefulStop(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	f := startRPC(t, grpcConfig{}, &fakeStore{series: func(s storepb.Store_SeriesServer) error {
		close(begun)
		<-finish
		return s.Send(
			&storepb.SeriesResponse{Result: &storepb.SeriesResponse_Warning{Warning: "still here"}},
		)
	}}, noTracing(t), nil)
	stream, err := storepb.NewStoreClient(f.conn).Series(t.Context(), &storepb.SeriesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	stopped := make(chan struct{})
	go func() {
		f.srv.stop(time.Minute, f.logger)
		close(stopped)
	}()
	<-f.listener.closed // nothing new is taken
	select {
	case <-stopped:
		t.Error("stopped with a request running")
	default:
	}
	close(finish)
	if resp, err := stream.Recv(); err != nil || resp.GetWarning() != "still here" {
		t.Errorf("got %v, %v", resp, err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
	<-stopped
}

// TestHardStop checks that a stream that does not finish in the grace period is cancelled, and that
// stop waits for its handler.
func TestHardStop(t *testing.T) {
	begun := make(chan struct{})
	ended := false
	f := startRPC(t, grpcConfig{}, &fakeStore{series: func(s storepb.Store_SeriesServer) error {
		close(begun)
		<-s.Context().Done()
		ended = true
		return s.Context().Err()
	}}, noTracing(t), nil)
	stream, err := storepb.NewStoreClient(f.conn).Series(t.Context(), &storepb.SeriesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	f.srv.stop(10*time.Millisecond, f.logger)
	if !ended {
		t.Error("stop returned with the handler running")
	}
	if _, err := stream.Recv(); err == nil || err == io.EOF {
		t.Errorf("got %v, want an error", err)
	}
	if !strings.Contains(f.log.String(), "grace period") {
		t.Errorf("the log does not tell:\n%s", f.log)
	}
}

func TestTracedRequest(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	tracing := &telemetry.Tracing{
		Enabled:  true,
		Provider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
	}
	f := startRPC(t, grpcConfig{}, &fakeStore{}, tracing, nil)
	if _, err := storepb.NewInfoClient(f.conn).
		Info(t.Context(), &storepb.InfoRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := healthpb.NewHealthClient(f.conn).
		Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	f.srv.stop(time.Minute, f.logger) // spans end after the client has its answer
	var got []string
	for _, s := range spans.Ended() {
		got = append(got, s.Name())
		if s.SpanKind() != trace.SpanKindServer || s.Parent().IsValid() {
			t.Errorf("kind %v, parent %v", s.SpanKind(), s.Parent())
		}
	}
	if diff := cmp.Diff([]string{"thanos.info.Info/Info"}, got); diff != "" {
		t.Error(diff)
	}
}

func exposition(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	web.Handler(web.Options{Probe: web.NewProbe(nil, nil), Gatherer: reg, Disable: true}).
		ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}
