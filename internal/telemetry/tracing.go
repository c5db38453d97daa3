package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

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

// Tracing is where spans go. The zero value is not useful: NewTracing makes one.
type Tracing struct {
	// Provider makes the tracers. It is a no-op when tracing is not configured.
	Provider trace.TracerProvider
	// Enabled is false when no span can ever be recorded: what costs something per message need not
	// be installed then.
	Enabled bool
	// Replaced are the values of the configuration that cannot be used.
	Replaced []Replaced

	sdk *sdktrace.TracerProvider
}

// Replaced is a value of the configuration that cannot be used: its key, what it is, what it should
// be and what counts instead.
type Replaced struct{ Key, Value, Want, Used string }

// Shutdown sends what is still queued and stops. It waits for the collector until ctx is done.
func (t *Tracing) Shutdown(ctx context.Context) error {
	if t.sdk == nil {
		return nil
	}
	return t.sdk.Shutdown(ctx)
}

// NewTracing reads Thanos's tracing YAML. Without one it takes the OTEL_* environment, and without
// that it traces nothing. Errors name the key. Nothing is connected yet when it returns: an
// unreachable collector does not hold up the start.
func NewTracing(ctx context.Context, conf []byte) (*Tracing, error) {
	if len(bytes.TrimSpace(conf)) == 0 {
		return tracingFromEnv(ctx)
	}
	// The type is looked at first: a JAEGER file is refused for being one, not for the first key
	// that OTLP does not have.
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
			"type %s is not supported: use type OTLP, which that system receives too", t,
		)
	case "GOOGLE_CLOUD", "STACKDRIVER":
		return nil, fmt.Errorf(
			"type %s is not supported: use type OTLP, and an OpenTelemetry collector that exports to Google Cloud",
			t,
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
	// the later one wins
	res := []resource.Option{resource.WithFromEnv(), resource.WithAttributes(attrs...)}
	t, err := newTracing(ctx, exporter, res, sdktrace.WithSampler(sampler))
	if err == nil {
		t.Replaced = replaced
	}
	return t, err
}

// tracingFromEnv follows the OpenTelemetry variables. Endpoint, headers, timeouts, sampler and
// resource are read by the SDK itself; what is decided here is only whether there is a collector to
// send to.
func tracingFromEnv(ctx context.Context) (*Tracing, error) {
	off := strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") ||
		os.Getenv("OTEL_TRACES_EXPORTER") == "none"
	endpoint := os.Getenv(
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
	) + os.Getenv(
		"OTEL_EXPORTER_OTLP_ENDPOINT",
	)
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
	return newTracing(ctx, exporter, res)
}

// exporterFromEnv follows the variables that name the protocol, the more special one first.
func exporterFromEnv(ctx context.Context) (sdktrace.SpanExporter, error) {
	for _, key := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
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
	ctx context.Context, exporter sdktrace.SpanExporter, resOpts []resource.Option,
	sdkOpts ...sdktrace.TracerProviderOption,
) (*Tracing, error) {
	res, err := resource.New(ctx, append(resOpts, resource.WithTelemetrySDK())...)
	if err != nil {
		return nil, fmt.Errorf("resource attributes: %w", sdkVariables().Error(err))
	}
	sdk := sdktrace.NewTracerProvider(
		append(sdkOpts, sdktrace.WithBatcher(exporter), sdktrace.WithResource(res))...)
	return &Tracing{Provider: sdk, Enabled: true, sdk: sdk}, nil
}
