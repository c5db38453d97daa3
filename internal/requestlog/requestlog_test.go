package requestlog

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"larder/internal/telemetry/telemetrytest"
)

// lines collects the lines of a log.
type lines struct{ telemetrytest.Buffer }

func (l *lines) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// take returns the lines so far and clears them.
func (l *lines) take(t *testing.T) []map[string]any {
	t.Helper()
	var got []map[string]any
	for dec := json.NewDecoder(strings.NewReader(l.Take())); ; {
		var line map[string]any
		err := dec.Decode(&line)
		if err == io.EOF {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, line)
	}
}

// has checks some fields of a line. The wanted value "*" matches every non-empty value.
func has(t *testing.T, line map[string]any, want map[string]string) {
	t.Helper()
	for k, v := range want {
		got, ok := line[k]
		if !ok || v == "*" && fmt.Sprint(got) == "" || v != "*" && fmt.Sprint(got) != v {
			t.Errorf("%s: got %v, want %s in %v", k, got, v, line)
		}
	}
}

// health fails Check with the code whose number is the name of the service.
type health struct {
	healthpb.UnimplementedHealthServer
}

func (health) Check(
	_ context.Context, r *healthpb.HealthCheckRequest,
) (*healthpb.HealthCheckResponse, error) {
	if r.Service != "" {
		return nil, status.Error(codes.Internal, "no "+r.Service)
	}
	return &healthpb.HealthCheckResponse{}, nil
}

func (health) Watch(_ *healthpb.HealthCheckRequest, s healthpb.Health_WatchServer) error {
	if err := s.Send(&healthpb.HealthCheckResponse{}); err != nil {
		return err
	}
	return status.Error(codes.Aborted, "no more")
}

// serve serves health with all interceptors of this package, in Thanos's order. It stops the server
// before it returns, because lines are written after the answer.
func serve(t *testing.T, conf *Config, l *lines, ask func(context.Context, healthpb.HealthClient)) {
	t.Helper()
	o := Options{Logger: l.logger(), Tenant: func(ctx context.Context) string {
		return strings.Join(metadata.ValueFromIncomingContext(ctx, "thanos-tenant"), ",")
	}}
	requests, outcomes := New(conf, o), NewOutcomes(o)
	srv := grpc.NewServer(
		grpc.WaitForHandlers(true),
		grpc.ChainUnaryInterceptor(
			IDUnary, requests.Unary, outcomes.Unary,
		),
		grpc.ChainStreamInterceptor(IDStream, requests.Stream, outcomes.Stream),
	)
	healthpb.RegisterHealthServer(srv, health{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	conn, err := grpc.NewClient(
		listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		t.Fatal(err)
	}
	ask(
		metadata.AppendToOutgoingContext(t.Context(), "THANOS-TENANT", "kitchen"),
		healthpb.NewHealthClient(conn),
	)
	srv.GracefulStop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func TestGRPC(t *testing.T) {
	var l lines
	conf := parse(
		t,
		"grpc: {options: {level: ERROR, decision: {log_start: true, log_end: true}}, config: [{service: grpc.health.v1.Health, method: Check}]}",
	)
	serve(t, conf, &l, func(ctx context.Context, c healthpb.HealthClient) {
		if _, err := c.Check(
			metadata.AppendToOutgoingContext(ctx, "request-id", "from-the-querier"),
			&healthpb.HealthCheckRequest{}); err != nil {
			t.Error(err)
		}
	})
	got := l.take(t)
	if len(got) != 2 {
		t.Fatalf("got %d lines, want 2: %v", len(got), got)
	}
	about := map[string]string{
		"level": "DEBUG", "service": "gRPC/server", "component": "store", "protocol": "grpc",
		"grpc.component": "server",
		"grpc.service":   "grpc.health.v1.Health", "grpc.method": "Check",
		"grpc.method_type": "unary", "grpc.start_time": "*",
		"peer.address": "*", "requestID": "from-the-querier", "tenant": "kitchen",
		"grpc.time_ms": "*",
	}
	has(t, got[0], about)
	has(t, got[0], map[string]string{"msg": "started call"})
	has(t, got[1], about)
	has(t, got[1], map[string]string{"msg": "finished call", "grpc.code": "OK"})
	if _, ok := got[1]["grpc.time_ms"].(float64); !ok {
		t.Errorf("grpc.time_ms is not a number: %v", got[1])
	}

	serve(t, conf, &l, func(ctx context.Context, c healthpb.HealthClient) {
		if _, err := c.Check(ctx, &healthpb.HealthCheckRequest{Service: "bread"}); status.Code(
			err,
		) != codes.Internal {
			t.Errorf("got %v", err)
		}
	})
	got = l.take(t)
	if len(got) != 3 {
		t.Fatalf("got %d lines, want 3: %v", len(got), got)
	}
	has(
		t,
		got[1],
		map[string]string{
			"msg":       "request failed",
			"level":     "WARN",
			"method":    "/grpc.health.v1.Health/Check",
			"requestID": "*",
			"tenant":    "kitchen",
		},
	)
	has(
		t,
		got[2],
		map[string]string{
			"msg":        "finished call",
			"level":      "ERROR",
			"grpc.code":  "Internal",
			"grpc.error": "*",
			"requestID":  fmt.Sprint(got[1]["requestID"]),
		},
	)

	watch := func(ctx context.Context, c healthpb.HealthClient) {
		s, err := c.Watch(ctx, &healthpb.HealthCheckRequest{})
		for err == nil {
			_, err = s.Recv()
		}
		if status.Code(err) != codes.Aborted {
			t.Errorf("got %v", err)
		}
	}
	serve(t, conf, &l, watch) // not among the methods of the configuration
	if got = l.take(t); len(got) != 1 {
		t.Fatalf("got %d lines, want 1, for the failure: %v", len(got), got)
	}
	serve(t, parse(t, "options: {level: INFO, decision: {log_end: true}}"), &l, watch)
	if got = l.take(t); len(got) != 2 {
		t.Fatalf("got %d lines, want 2: %v", len(got), got)
	}
	has(
		t,
		got[1],
		map[string]string{
			"msg":              "finished call",
			"level":            "DEBUG",
			"grpc.method_type": "server_stream",
			"grpc.code":        "Aborted",
		},
	)
}

// TestClientsChooseIDs checks that the id from a client is truncated.
func TestClientsChooseIDs(t *testing.T) {
	ctx := metadata.NewIncomingContext(
		t.Context(), metadata.Pairs("request-id", strings.Repeat("x", 10_000)),
	)
	if got := len(ID(withID(ctx))); got != maxIDBytes {
		t.Errorf("got an id of %d bytes, want %d", got, maxIDBytes)
	}
	two := metadata.NewIncomingContext(
		t.Context(), metadata.Pairs("request-id", "a", "request-id", "b"),
	)
	if a, b := ID(withID(two)), ID(withID(t.Context())); a == "" || b == "" || a == b {
		t.Errorf("got ids %q and %q, want two new ones", a, b)
	}
}

func TestHTTP(t *testing.T) {
	var l lines
	log := New(
		parse(t, "options: {level: DEBUG, decision: {log_start: true, log_end: true}}"),
		Options{Logger: l.logger()},
	)
	h := log.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/blocks":
			_, _ = io.WriteString(w, "{}")
		case "/api/v1/status/buildinfo":
			http.Error(w, "no", http.StatusNotFound)
		case "/api/v1/blocks/mark":
			http.Error(w, "no", http.StatusBadGateway)
		case "/api/v1/panic":
			panic(http.ErrAbortHandler)
		}
	}))
	get := func(path string) []map[string]any {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("User-Agent", "spoon")
		r.Header.Set("X-Request-ID", "mine")
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				panic(p)
			}
		}()
		h.ServeHTTP(httptest.NewRecorder(), r)
		return l.take(t)
	}
	got := get("/api/v1/blocks?view=loaded")
	if len(got) != 2 {
		t.Fatalf("got %d lines, want 2: %v", len(got), got)
	}
	about := map[string]string{
		"level": "DEBUG", "service": "http/server", "component": "store", "protocol": "http",
		"http.component": "server",
		"http.method":    "GET /api/v1/blocks?view=loaded", "http.request_id": "mine",
		"http.user_agent": "spoon", "thanos.method_name": "blocks",
	}
	has(t, got[0], about)
	has(t, got[0], map[string]string{"msg": "started call", "http.start_time": "*"})
	has(t, got[1], about)
	has(
		t,
		got[1],
		map[string]string{
			"msg":              "finished call",
			"http.status_code": "200",
			"http.time_ms":     "*",
			"http.remote_addr": "192.0.2.1:1234",
		},
	)
	if _, ok := got[1]["http.time_ms"].(float64); !ok {
		t.Errorf("http.time_ms is not a number: %v", got[1])
	}
	has(
		t,
		get("/api/v1/status/buildinfo")[1],
		map[string]string{
			"level":              "DEBUG",
			"http.status_code":   "404",
			"thanos.method_name": "status_build",
		},
	)
	has(
		t,
		get("/api/v1/blocks/mark")[1],
		map[string]string{
			"level":              "ERROR",
			"http.status_code":   "502",
			"thanos.method_name": "blocks_mark",
		},
	)
	get("/api/v1/panic")
	if got := l.take(t); len(got) != 2 {
		t.Errorf("after a panic: got %v", got)
	} else {
		has(t, got[1], map[string]string{"level": "ERROR", "http.status_code": "500"})
	}
	if got := get("/-/ready"); len(got) > 0 {
		t.Errorf("the probe is logged: %v", got)
	}

	// Lines below the level are suppressed, and a new configuration applies to the next request.
	log.Set(parse(t, "options: {level: ERROR, decision: {log_start: true, log_end: true}}"))
	if got := get("/api/v1/blocks"); len(got) > 0 {
		t.Errorf("below the level: got %v", got)
	}
	if got := get("/api/v1/blocks/mark"); len(got) != 1 {
		t.Errorf("at the level: got %v", got)
	}
	log.Set(nil)
	if got := get("/api/v1/blocks/mark"); len(got) > 0 {
		t.Errorf("without a configuration: got %v", got)
	}
}

// TestHTTPLinesAreBounded checks that long values from a client are truncated.
func TestHTTPLinesAreBounded(t *testing.T) {
	var l lines
	h := New(
		parse(t, "http: {options: {level: DEBUG, decision: {log_start: true, log_end: true}}}"),
		Options{Logger: l.logger()},
	).
		HTTP(http.NotFoundHandler())
	long := strings.Repeat("x", 1<<16)
	r := httptest.NewRequest(http.MethodGet, "/api/v1/"+long+"?"+long, nil)
	for _, name := range []string{"User-Agent", "X-Forwarded-For", "X-Request-ID"} {
		r.Header.Set(name, long)
	}
	h.ServeHTTP(httptest.NewRecorder(), r)
	if n := len(l.String()); n == 0 || n > 1<<14 {
		t.Errorf("got %d bytes of lines", n)
	}
}

func TestFailuresDoNotFloodTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lines
		f := NewOutcomes(Options{Logger: l.logger(), Polled: []string{"/a/poll"}})
		fail := func(n int, method string, code codes.Code) []map[string]any {
			for range n {
				f.log(t.Context(), method, 0, status.Error(code, "no"))
			}
			return l.take(t)
		}
		if got := len(fail(1000, "/a/b", codes.Aborted)); got != failureBurst {
			t.Errorf("got %d lines of 1000 failures, want %d", got, failureBurst)
		}
		if got := len(fail(1, "/a/c", codes.Aborted)) + len(
			fail(1, "/a/b", codes.Internal)); got != 2 {
			t.Errorf("got %d lines of two failures of other kinds", got)
		}
		if got := len(fail(100, "/a/b", codes.InvalidArgument)); got != 100 {
			t.Errorf("got %d lines at debug, want all 100", got)
		}
		for _, code := range []codes.Code{codes.DeadlineExceeded, codes.Unavailable} {
			got := fail(1000, "/a/b", code)
			if len(got) != failureBurst {
				t.Errorf("%s: got %d lines of 1000, want %d", code, len(got), failureBurst)
			}
			has(t, got[0], map[string]string{"level": "WARN", "code": code.String(), "err": "*"})
		}
		has(t, fail(1, "/a/poll", codes.Unavailable)[0], map[string]string{"level": "DEBUG"})
		time.Sleep(outcomeInterval)
		got := fail(2, "/a/b", codes.Aborted)
		if len(got) != 2 {
			t.Fatalf("got %d lines in the next interval, want 2", len(got))
		}
		has(
			t, got[0],
			map[string]string{"level": "WARN", "suppressed": fmt.Sprint(1000 - failureBurst)},
		)
		if _, again := got[1]["suppressed"]; again {
			t.Errorf("suppressed lines are counted twice: %v", got[1])
		}
	})
}

// TestSlowRequests checks that a request that took as long as Options.Slow is logged with what its
// handler described, and that lines are limited.
func TestSlowRequests(t *testing.T) {
	var l lines
	o := NewOutcomes(Options{Logger: l.logger(), Slow: time.Second})
	ask := func(d time.Duration, err error, describe func() []any) []map[string]any {
		ctx := withID(t.Context())
		if describe != nil {
			Describe(ctx, describe)
		}
		o.log(ctx, "/a/b", d, err)
		return l.take(t)
	}
	matchers := func() []any { return []any{"matchers", `{job="bread"}`} }
	never := func() []any { t.Error("described without a line"); return nil }
	if got := ask(time.Second-1, nil, never); len(got) > 0 {
		t.Errorf("a fast request is logged: %v", got)
	}
	if got := ask(time.Hour, nil, nil); len(got) > 0 {
		t.Errorf("a request that is not for data is logged: %v", got)
	}
	got := ask(time.Second, nil, matchers)
	if len(got) != 1 {
		t.Fatalf("got %d lines for a slow request: %v", len(got), got)
	}
	has(t, got[0], map[string]string{
		"msg": "slow request", "level": "INFO", "method": "/a/b", "requestID": "*",
		"duration": "1e+09", "matchers": `{job="bread"}`,
	})
	ctx := withID(t.Context())
	Describe(ctx, matchers)
	Slow(ctx)
	o.log(ctx, "/a/c", time.Millisecond, nil)
	if got := l.take(t); len(got) != 1 || got[0]["msg"] != "slow request" {
		t.Errorf("a fast request whose handler calls it slow: got %v", got)
	}
	for code, want := range map[codes.Code]map[string]string{
		codes.Aborted:           {"msg": "request failed", "level": "WARN"},
		codes.DeadlineExceeded:  {"msg": "request failed", "level": "WARN"},
		codes.Canceled:          {"msg": "slow request", "level": "INFO"},
		codes.ResourceExhausted: {"msg": "slow request", "level": "INFO"},
	} {
		got = ask(time.Hour, status.Error(code, "no"), matchers)
		if len(got) != 1 {
			t.Fatalf("got %d lines for a slow failure: %v", len(got), got)
		}
		has(t, got[0], want)
		has(t, got[0], map[string]string{
			"code": code.String(), "err": "*", "matchers": `{job="bread"}`,
		})
	}
	got = ask(time.Hour, status.Error(codes.Canceled, "no"), nil)
	has(t, got[0], map[string]string{"msg": "request failed", "level": "DEBUG"})
	ctx = withID(t.Context())
	AtFault(ctx)
	o.log(ctx, "/a/d", time.Millisecond, status.Error(codes.ResourceExhausted, "queue"))
	has(t, l.take(t)[0], map[string]string{"msg": "request failed", "level": "WARN"})
	got = nil
	for range 2 * slowBurst {
		got = append(got, ask(time.Second, nil, matchers)...)
	}
	if len(got) != slowBurst-1 { // one is above
		t.Errorf("got %d lines for slow requests, want %d", len(got), slowBurst-1)
	}
}
