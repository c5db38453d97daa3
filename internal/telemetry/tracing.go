package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/version"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"go.yaml.in/yaml/v3"

	"larder/internal/redaction"
	"larder/internal/yamldoc"
)

// Tracing is the tracer provider and its configuration. Call NewTracing to get one.
type Tracing struct {
	// Provider provides tracers. They do nothing if tracing is not configured.
	Provider trace.TracerProvider
	// Enabled reports whether spans can be recorded. If not, instrumentation that costs time per
	// message is not needed.
	Enabled bool
	// SpansPerRequest bounds the spans of a request; 0 is the default, less than 0 no bound.
	SpansPerRequest int
	// Replaced lists the values of the configuration that cannot be used.
	Replaced []Replaced

	sdk   *sdktrace.TracerProvider
	queue *spanQueue
}

// Register registers the metrics of tracing, if it is on.
func (t *Tracing) Register(reg prometheus.Registerer) {
	if t.queue != nil {
		reg.MustRegister(t.queue.full, t.queue.failed)
	}
}

// Replaced is a value of the configuration that cannot be used: its key, the value, the valid
// values and the value that is used instead.
type Replaced struct{ Key, Value, Want, Used string }

// Shutdown sends the queued spans and stops. It waits for the collector until ctx is done.
func (t *Tracing) Shutdown(ctx context.Context) error {
	if t.sdk == nil {
		return nil
	}
	return t.sdk.Shutdown(ctx)
}

// NewTracing parses Thanos's tracing YAML. Without it, it uses the OTEL_* environment variables.
// Without those, tracing is off. Errors name the key. NewTracing does not connect, so that an
// unreachable collector does not delay the start.
func NewTracing(ctx context.Context, conf []byte) (*Tracing, error) {
	if len(bytes.TrimSpace(conf)) == 0 {
		return tracingFromEnv(ctx)
	}
	// Check the type first, so that the error for a JAEGER file names its type and not an unknown
	// key.
	var kind struct {
		Type string `yaml:"type"`
	}
	if err := yaml.Unmarshal(conf, &kind); err != nil {
		return nil, yamldoc.Shape{Of: kind}.Explain(conf, err)
	}
	switch t := strings.ToUpper(kind.Type); t {
	case "OTLP":
	case "":
		return nil, errors.New("type is missing: only OTLP is supported")
	case "JAEGER", "ELASTIC_APM", "LIGHTSTEP":
		return nil, fmt.Errorf(
			"type %s is not supported: use type OTLP, which that system also accepts", t,
		)
	case "GOOGLE_CLOUD", "STACKDRIVER":
		return nil, fmt.Errorf(
			"type %s is not supported: use type OTLP, "+
				"and an OpenTelemetry collector that exports to Google Cloud", t,
		)
	default:
		return nil, fmt.Errorf("type %s is not known: only OTLP is supported",
			redaction.Value(kind.Type))
	}
	var file struct {
		Type   string     `yaml:"type"`
		Config otlpConfig `yaml:"config"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(conf))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil {
		return nil, yamldoc.Shape{Of: file}.Explain(conf, err)
	}
	c := &file.Config
	sampler, replaced := c.sampler()
	exporter, err := c.exporter(ctx)
	if err != nil {
		return nil, err
	}
	attrs := make([]attribute.KeyValue, 0, len(c.ResourceAttributes)+1)
	for k, v := range c.ResourceAttributes {
		attrs = append(attrs, attribute.String(k, v))
	}
	name := c.ServiceName
	if name == "" {
		name = "larder"
	}
	attrs = append(attrs, attribute.String("service.name", name))
	res := []resource.Option{resource.WithFromEnv(), resource.WithAttributes(attrs...)}
	t, err := newTracing(ctx, exporter, c.SpansPerRequest, res, sdktrace.WithSampler(sampler))
	if err == nil {
		t.Replaced, t.SpansPerRequest = replaced, c.SpansPerRequest
	}
	return t, err
}

// tracingFromEnv uses the OpenTelemetry variables. It only decides whether there is a collector and
// which protocol it speaks. The SDK reads the endpoint, headers, timeouts, sampler and resource.
func tracingFromEnv(ctx context.Context) (*Tracing, error) {
	off := strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") ||
		os.Getenv("OTEL_TRACES_EXPORTER") == "none"
	endpoint := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") +
		os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT")
	if off || endpoint == "" {
		return &Tracing{Provider: noop.NewTracerProvider()}, nil
	}
	exporter, err := exporterFromEnv(ctx)
	if err != nil {
		return nil, sdkVariables().Error(err)
	}
	res := []resource.Option{
		resource.WithAttributes(attribute.String("service.name", "larder")),
		resource.WithFromEnv(),
	}
	return newTracing(ctx, exporter, 0, res)
}

// exporterFromEnv uses the variables that name the protocol. The one for traces takes precedence.
func exporterFromEnv(ctx context.Context) (sdktrace.SpanExporter, error) {
	for _, key := range []string{
		"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL",
	} {
		switch p := os.Getenv(key); p {
		case "":
		case "grpc":
			return otlptracegrpc.New(ctx)
		case "http/protobuf":
			return otlptracehttp.New(ctx)
		default:
			return nil, fmt.Errorf("%s=%s is not supported: use grpc or http/protobuf", key,
				redaction.Value(p))
		}
	}
	return otlptracegrpc.New(ctx)
}

func newTracing(
	ctx context.Context, exporter sdktrace.SpanExporter, spansPerRequest int,
	resOpts []resource.Option, sdkOpts ...sdktrace.TracerProviderOption,
) (*Tracing, error) {
	opts := []resource.Option{resource.WithTelemetrySDK(), resource.WithAttributes(instance()...)}
	res, err := resource.New(ctx, append(opts, resOpts...)...) // the later one wins
	if err != nil {
		return nil, fmt.Errorf("resource attributes: %w", sdkVariables().Error(err))
	}
	queue := newSpanQueue(exporter, spansPerRequest)
	sdk := sdktrace.NewTracerProvider(
		append(sdkOpts, sdktrace.WithSpanProcessor(queue), sdktrace.WithResource(res))...)
	return &Tracing{Provider: sdk, Enabled: true, sdk: sdk, queue: queue}, nil
}

// instance returns the attributes that tell this process from others: its version, and its host
// name, which is the name of the pod in Kubernetes, with its process id.
func instance() []attribute.KeyValue {
	var attrs []attribute.KeyValue
	if version.Version != "" {
		attrs = append(attrs, attribute.String("service.version", version.Version))
	}
	if host, err := os.Hostname(); err == nil {
		attrs = append(attrs,
			attribute.String("service.instance.id", fmt.Sprintf("%s-%d", host, os.Getpid())))
	}
	return attrs
}
