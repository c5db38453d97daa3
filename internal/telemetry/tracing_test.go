package telemetry

import (
	"compress/gzip"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// sink is a collector that records requests.
type sink struct {
	collector.UnimplementedTraceServiceServer
	got chan *collector.ExportTraceServiceRequest
}

func (s *sink) Export(
	_ context.Context, r *collector.ExportTraceServiceRequest,
) (*collector.ExportTraceServiceResponse, error) {
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

// sendOne records a span. It returns the service name and the span name that the collector
// received.
func sendOne(t *testing.T, tr *Tracing, s *sink) (service, span string) {
	t.Helper()
	resource, span := sendSpan(t, tr, s)
	return resource["service.name"], span
}

// sendSpan is sendOne, for all attributes of the resource.
func sendSpan(t *testing.T, tr *Tracing, s *sink) (resource map[string]string, span string) {
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
	resource = map[string]string{}
	for _, a := range r.Resource.Attributes {
		resource[a.Key] = a.Value.GetStringValue()
	}
	return resource, r.ScopeSpans[0].Spans[0].Name
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

	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
	if _, err := NewTracing(t.Context(), nil); err == nil ||
		!strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_PROTOCOL") {
		t.Errorf("protocol: got %v", err)
	}
	t.Setenv("OTEL_SDK_DISABLED", "true")
	if tr, err := NewTracing(t.Context(), nil); err != nil || tr.Enabled {
		t.Errorf("disabled SDK: got %+v, %v", tr, err)
	}
}

// TestInstance checks that the resource names this process unless the configuration does.
func TestInstance(t *testing.T) {
	addr, s := startSink(t)
	conf := "{type: OTLP, config: {endpoint: '" + addr + "', insecure: true%s}}"
	tr, err := NewTracing(t.Context(), fmt.Appendf(nil, conf, ""))
	if err != nil {
		t.Fatal(err)
	}
	resource, _ := sendSpan(t, tr, s)
	if id := resource["service.instance.id"]; !strings.HasSuffix(id, fmt.Sprint("-", os.Getpid())) {
		t.Errorf("got the instance %q", id)
	}
	tr, err = NewTracing(t.Context(), fmt.Appendf(nil, conf,
		", resource_attributes: {service.instance.id: shelf-1, service.version: v1}"))
	if err != nil {
		t.Fatal(err)
	}
	resource, _ = sendSpan(t, tr, s)
	if resource["service.instance.id"] != "shelf-1" || resource["service.version"] != "v1" {
		t.Errorf("configured attributes: got %v", resource)
	}
}

// received is a request to a collector over HTTP.
type received struct {
	path, key, encoding string
	request             *collector.ExportTraceServiceRequest
}

func startHTTPSink(t *testing.T) (srv *httptest.Server, got chan received) {
	t.Helper()
	got = make(chan received, 1)
	srv = httptest.NewUnstartedServer(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			body := io.Reader(r.Body)
			if r.Header.Get("Content-Encoding") == "gzip" {
				z, err := gzip.NewReader(r.Body)
				if err != nil {
					t.Errorf("collector: %v", err)
					return
				}
				body = z
			}
			b, err := io.ReadAll(body)
			req := &collector.ExportTraceServiceRequest{}
			if err == nil {
				err = proto.Unmarshal(b, req)
			}
			if err != nil {
				t.Errorf("collector: %v", err)
			}
			got <- received{r.URL.Path, r.Header.Get("api-key"), r.Header.Get("Content-Encoding"),
				req}
		}),
	)
	t.Cleanup(srv.Close)
	return srv, got
}

func TestTracingOverHTTP(t *testing.T) {
	send := func(conf string, got chan received) received {
		t.Helper()
		tr, err := NewTracing(t.Context(), []byte(conf))
		if err != nil {
			t.Fatal(err)
		}
		_, sp := tr.Provider.Tracer("test").Start(t.Context(), "one")
		sp.End()
		if err := tr.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		return <-got
	}

	plain, got := startHTTPSink(t)
	plain.Start()
	r := send(
		"{type: OTLP, config: {client_type: http, insecure: true, endpoint: '"+plain.Listener.Addr().
			String()+
			"', url_path: /custom/traces, compression: gzip, headers: {api-key: secret}, service_name: pantry, retry_config: {retry_enabled: true}}}",
		got,
	)
	if r.path != "/custom/traces" || r.key != "secret" || r.encoding != "gzip" ||
		r.request.ResourceSpans[0].ScopeSpans[0].Spans[0].Name != "one" {
		t.Errorf("got %+v", r)
	}

	secure, got := startHTTPSink(t)
	secure.StartTLS()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(
		ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}),
		0o600); err != nil {
		t.Fatal(err)
	}
	r = send(
		"{type: OTLP, config: {client_type: http, endpoint: '"+secure.Listener.Addr().
			String()+
			"', tls_config: {ca_file: '"+ca+"'}}}",
		got,
	)
	if r.path != "/v1/traces" || r.encoding != "" {
		t.Errorf("over TLS: got %+v", r)
	}

	env, got := startHTTPSink(t)
	env.Start()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", env.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	if r = send("", got); r.path != "/v1/traces" {
		t.Errorf("from the environment: got %+v", r)
	}
}

// TestSamplers checks sampling of requests without a parent, with a sampled parent and with an
// unsampled parent.
func TestSamplers(t *testing.T) {
	f := func(kind, param string, root, ofSampled, ofUnsampled bool) {
		t.Helper()
		c := otlpConfig{SamplerType: kind, SamplerParam: param}
		s, _ := c.sampler()
		sampled := func(flags trace.TraceFlags, parent bool) bool {
			ctx, id := t.Context(), trace.TraceID{8: 0x7f, 15: 1} // in the lower half of all ids
			if parent {
				ctx = trace.ContextWithRemoteSpanContext(
					ctx,
					trace.NewSpanContext(trace.SpanContextConfig{
						TraceID: id, SpanID: trace.SpanID{1}, TraceFlags: flags, Remote: true,
					}),
				)
			}
			return s.ShouldSample(
				sdktrace.SamplingParameters{ParentContext: ctx, TraceID: id},
			).Decision == sdktrace.RecordAndSample
		}
		if got := [3]bool{sampled(0, false), sampled(trace.FlagsSampled, true),
			sampled(0, true)}; got != [3]bool{
			root,
			ofSampled,
			ofUnsampled,
		} {
			t.Errorf(
				"%s %s: sampled as root, under a sampled parent, under another: %v", kind, param,
				got,
			)
		}
	}
	f("", "", true, true, false)
	f("alwayssample", "", true, true, true)
	f("NeverSample", "", false, false, false)
	f("traceidratiobased", "0.9", true, true, true)
	f("traceidratiobased", "0.1", false, false, false)
	f("parentbasedalwayssample", "", true, true, false)
	f("parentbasedneversample", "", false, true, false)
	f("parentbasedtraceidratiobased", "0.1", false, true, false)
	f("parentbasedtraceidratiobased", "0.9", true, true, false)
	// Invalid samplers and ratios are replaced, same as in Thanos.
	f("sometimes", "", true, true, false)
	f("ratelimiting", "0.1", true, true, false)
	f("traceidratiobased", "lots", true, true, true)
	f("traceidratiobased", "", true, true, true)
	f("traceidratiobased", "17", true, true, true)
	f("traceidratiobased", "-1", false, false, false)
	f("parentbasedtraceidratiobased", "NaN", true, true, false)
}

// TestUnusableSamplersAreReported checks that the caller learns which value is replaced, and by
// which.
func TestUnusableSamplersAreReported(t *testing.T) {
	f := func(conf string, want ...Replaced) {
		t.Helper()
		tr, err := NewTracing(t.Context(), []byte("{type: OTLP, config: "+conf+"}"))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(tr.Replaced, want) {
			t.Errorf("%s: got %q, want %q", conf, tr.Replaced, want)
		}
		_ = tr.Shutdown(t.Context()) // nothing was recorded
	}
	f("{sampler_type: TraceIDRatioBased, sampler_param: '0.5'}")
	f(
		"{sampler_type: sometimes}",
		Replaced{"sampler_type", "sometimes", "one of " + samplers, "parentbasedalwayssample"},
	)
	f(
		"{sampler_type: traceidratiobased, sampler_param: lots}",
		Replaced{"sampler_param", "lots", "a ratio from 0 to 1", "1"},
	)
	f(
		"{sampler_type: traceidratiobased, sampler_param: '-1'}",
		Replaced{"sampler_param", "-1", "a ratio from 0 to 1", "0"},
	)
}

// TestHangingCollector checks that the start does not wait for a collector that hangs, and that the
// shutdown respects its deadline.
func TestHangingCollector(t *testing.T) {
	// connections are accepted by the kernel and never served
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, kind := range []string{"grpc", "http"} {
		tr, err := NewTracing(
			t.Context(),
			[]byte(
				"{type: OTLP, config: {client_type: "+kind+", insecure: true, endpoint: '"+l.Addr().
					String()+
					"'}}",
			),
		)
		if err != nil {
			t.Fatal(err)
		}
		_, sp := tr.Provider.Tracer("test").Start(t.Context(), "lost")
		sp.End()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		start := time.Now()
		if err := tr.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: Shutdown returned %v", kind, err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: Shutdown took %s", kind, d)
		}
	}
}

func TestTracingOff(t *testing.T) {
	tr, err := NewTracing(t.Context(), []byte(" \n"))
	if err != nil {
		t.Fatal(err)
	}
	_, sp := tr.Provider.Tracer("test").Start(t.Context(), "none")
	if tr.Enabled || sp.IsRecording() {
		t.Error("spans are recorded without a configuration")
	}
	if err := tr.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTracingRefuses(t *testing.T) {
	f := func(yaml, want string) {
		t.Helper()
		if _, err := NewTracing(t.Context(), []byte(yaml)); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", yaml, err, want)
		}
	}
	f("type: JAEGER\nconfig: {agent_host: x}", "type JAEGER is not supported")
	f("type: google_cloud", "type GOOGLE_CLOUD is not supported: use type OTLP")
	f("type: STACKDRIVER", "type STACKDRIVER is not supported: use type OTLP")
	f("type: ELASTIC_APM", "type ELASTIC_APM is not supported: use type OTLP")
	f("type: LIGHTSTEP", "type LIGHTSTEP is not supported: use type OTLP")
	f("type: ZIPKIN", "type ZIPKIN is not known")
	f("config: {}", "type is missing")
	f("type: OTLP\nconfig: {endpiont: x}", "endpiont")
	f("type: OTLP\nextra: 1", "extra")
	f("type: OTLP\nconfig: {client_type: carrier-pigeon}", "client_type carrier-pigeon")
	f("type: OTLP\nconfig: {url_path: /v1}", "url_path")
	f("type: OTLP\nconfig: {client_type: http, reconnection_period: 1s}", "reconnection_period")
	f(
		"type: OTLP\nconfig: {client_type: http, endpoint: 'http://127.0.0.1:4318'}",
		"endpoint http://127.0.0.1:4318: want host:port",
	)
	f("type: OTLP\nconfig: {compression: zip}", "compression zip")
	f("type: OTLP\nconfig: {tls_config: {ca_file: /does/not/exist}}", "ca_file")
	f("type: OTLP\nconfig: {tls_config: {cert_file: a}}", "cert_file and key_file")
	f("type: [", "yaml")
}
