package telemetry

import (
	"context"
	"net"
	"strings"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// sink is a collector that keeps what it was sent.
type sink struct {
	collector.UnimplementedTraceServiceServer
	got chan *collector.ExportTraceServiceRequest
}

func (s *sink) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.got <- r
	return &collector.ExportTraceServiceResponse{}, nil
}

func startSink(t *testing.T) (addr string, s *sink) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = &sink{got: make(chan *collector.ExportTraceServiceRequest, 1)}
	srv := grpc.NewServer()
	collector.RegisterTraceServiceServer(srv, s)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Errorf("collector: %v", err)
		}
	})
	return l.Addr().String(), s
}

// sendOne records a span and returns the name of the service that the collector was told, and the span's name.
func sendOne(t *testing.T, tr *Tracing, s *sink) (service, span string) {
	t.Helper()
	if !tr.Enabled {
		t.Fatal("tracing is not enabled")
	}
	_, sp := tr.Provider.Tracer("test").Start(t.Context(), "one")
	sp.End()
	if err := tr.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := (<-s.got).ResourceSpans[0]
	for _, a := range r.Resource.Attributes {
		if a.Key == "service.name" {
			service = a.Value.GetStringValue()
		}
	}
	return service, r.ScopeSpans[0].Spans[0].Name
}

func TestTracingFromYAML(t *testing.T) {
	addr, s := startSink(t)
	tr, err := NewTracing(t.Context(), []byte(`
type: otlp
config:
  client_type: grpc
  endpoint: `+addr+`
  insecure: true
  service_name: pantry
  sampler_type: traceidratiobased
  sampler_param: "1"
`))
	if err != nil {
		t.Fatal(err)
	}
	if service, span := sendOne(t, tr, s); service != "pantry" || span != "one" {
		t.Errorf("got service %q, span %q", service, span)
	}
}

func TestTracingFromEnvironment(t *testing.T) {
	addr, s := startSink(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+addr)
	tr, err := NewTracing(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if service, _ := sendOne(t, tr, s); service != "larder" {
		t.Errorf("got service %q", service)
	}

	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	if _, err := NewTracing(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_PROTOCOL") {
		t.Errorf("protocol: got %v", err)
	}
	t.Setenv("OTEL_SDK_DISABLED", "true")
	if tr, err := NewTracing(t.Context(), nil); err != nil || tr.Enabled {
		t.Errorf("disabled SDK: got %+v, %v", tr, err)
	}
}

func TestTracingOff(t *testing.T) {
	tr, err := NewTracing(t.Context(), []byte(" \n"))
	if err != nil {
		t.Fatal(err)
	}
	_, sp := tr.Provider.Tracer("test").Start(t.Context(), "none")
	if tr.Enabled || sp.IsRecording() {
		t.Error("no configuration, yet spans are recorded")
	}
	if err := tr.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTracingRefuses(t *testing.T) {
	f := func(yaml, want string) {
		t.Helper()
		if _, err := NewTracing(t.Context(), []byte(yaml)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", yaml, err, want)
		}
	}
	f("type: JAEGER\nconfig: {agent_host: x}", "type JAEGER is not supported")
	f("config: {}", "type is missing")
	f("type: OTLP\nconfig: {endpiont: x}", "endpiont")
	f("type: OTLP\nextra: 1", "extra")
	f("type: OTLP\nconfig: {client_type: http}", "client_type http")
	f("type: OTLP\nconfig: {url_path: /v1}", "url_path")
	f("type: OTLP\nconfig: {compression: zip}", "compression zip")
	f("type: OTLP\nconfig: {sampler_type: sometimes}", `sampler_type "sometimes"`)
	f("type: OTLP\nconfig: {sampler_type: traceidratiobased, sampler_param: lots}", `sampler_param "lots"`)
	f("type: OTLP\nconfig: {tls_config: {ca_file: /does/not/exist}}", "ca_file")
	f("type: OTLP\nconfig: {tls_config: {cert_file: a}}", "cert_file and key_file")
	f("type: [", "yaml")
}
