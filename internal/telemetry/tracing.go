package telemetry

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/credentials"
)

// Tracing is where spans go. The zero value is not useful: NewTracing makes one.
type Tracing struct {
	// Provider makes the tracers. It is a no-op when tracing is not configured.
	Provider trace.TracerProvider
	// Enabled is false when no span can ever be recorded: what costs something per message need not be installed then.
	Enabled bool

	sdk *sdktrace.TracerProvider
}

// Shutdown sends what is still queued and stops. It waits for the collector until ctx is done.
func (t *Tracing) Shutdown(ctx context.Context) error {
	if t.sdk == nil {
		return nil
	}
	return t.sdk.Shutdown(ctx)
}

// otlpConfig holds the keys that Thanos has for type OTLP.
type otlpConfig struct {
	ClientType         string            `yaml:"client_type"`
	ServiceName        string            `yaml:"service_name"`
	ResourceAttributes map[string]string `yaml:"resource_attributes"`
	ReconnectionPeriod time.Duration     `yaml:"reconnection_period"`
	Compression        string            `yaml:"compression"`
	Insecure           bool              `yaml:"insecure"`
	Endpoint           string            `yaml:"endpoint"`
	URLPath            string            `yaml:"url_path"`
	Timeout            time.Duration     `yaml:"timeout"`
	RetryConfig        struct {
		Enabled         bool          `yaml:"retry_enabled"`
		InitialInterval time.Duration `yaml:"retry_initial_interval"`
		MaxInterval     time.Duration `yaml:"retry_max_interval"`
		MaxElapsedTime  time.Duration `yaml:"retry_max_elapsed_time"`
	} `yaml:"retry_config"`
	Headers      map[string]string `yaml:"headers"`
	TLSConfig    tlsConfig         `yaml:"tls_config"`
	SamplerType  string            `yaml:"sampler_type"`
	SamplerParam string            `yaml:"sampler_param"`
}

type tlsConfig struct {
	CAFile             string `yaml:"ca_file"`
	CertFile           string `yaml:"cert_file"`
	KeyFile            string `yaml:"key_file"`
	ServerName         string `yaml:"server_name"`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
}

// NewTracing reads Thanos's tracing YAML. Without one it takes the OTEL_* environment, and without that it traces nothing.
// Errors name the key. Nothing is connected yet when it returns: an unreachable collector does not hold up the start.
func NewTracing(ctx context.Context, conf []byte) (*Tracing, error) {
	if len(bytes.TrimSpace(conf)) == 0 {
		return tracingFromEnv(ctx)
	}
	// The type is looked at first: a JAEGER file is refused for being one, not for the first key that OTLP does not have.
	var kind struct {
		Type string `yaml:"type"`
	}
	if err := yaml.Unmarshal(conf, &kind); err != nil {
		return nil, err
	}
	switch t := strings.ToUpper(kind.Type); t {
	case "OTLP":
	case "":
		return nil, errors.New("type is missing: only OTLP is supported")
	default:
		return nil, fmt.Errorf("type %s is not supported: send the spans as type OTLP, which collectors of that kind receive too", t)
	}
	var file struct {
		Type   string     `yaml:"type"`
		Config otlpConfig `yaml:"config"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(conf))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil {
		return nil, err
	}
	c := &file.Config
	opts, err := c.exporterOptions()
	if err != nil {
		return nil, err
	}
	sampler, err := c.sampler()
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
	res := []resource.Option{resource.WithFromEnv(), resource.WithAttributes(attrs...)} // the later one wins
	return newTracing(ctx, opts, res, sdktrace.WithSampler(sampler))
}

// tracingFromEnv follows the OpenTelemetry variables. Endpoint, headers, timeouts, sampler and resource are read by the SDK
// itself; what is decided here is only whether there is a collector to send to.
func tracingFromEnv(ctx context.Context) (*Tracing, error) {
	off := strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none"
	endpoint := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") + os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT")
	if off || endpoint == "" {
		return &Tracing{Provider: noop.NewTracerProvider()}, nil
	}
	for _, key := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if p := os.Getenv(key); p != "" && p != "grpc" {
			return nil, fmt.Errorf("%s=%s is not supported: use grpc", key, p)
		}
	}
	res := []resource.Option{resource.WithAttributes(attribute.String("service.name", "larder")), resource.WithFromEnv()}
	return newTracing(ctx, nil, res)
}

func newTracing(ctx context.Context, opts []otlptracegrpc.Option, resOpts []resource.Option, sdkOpts ...sdktrace.TracerProviderOption) (*Tracing, error) {
	exporter, err := otlptracegrpc.New(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("OTLP exporter: %w", err)
	}
	res, err := resource.New(ctx, append(resOpts, resource.WithTelemetrySDK())...)
	if err != nil {
		return nil, fmt.Errorf("resource attributes: %w", err)
	}
	sdk := sdktrace.NewTracerProvider(append(sdkOpts, sdktrace.WithBatcher(exporter), sdktrace.WithResource(res))...)
	return &Tracing{Provider: sdk, Enabled: true, sdk: sdk}, nil
}

func (c *otlpConfig) exporterOptions() ([]otlptracegrpc.Option, error) {
	switch c.ClientType {
	case "", "grpc":
	default:
		return nil, fmt.Errorf("config: client_type %s is not supported: use grpc", c.ClientType)
	}
	if c.URLPath != "" {
		return nil, errors.New("config: url_path belongs to client_type http, which is not supported: use grpc and leave it out")
	}
	var opts []otlptracegrpc.Option
	if c.Endpoint != "" {
		opts = append(opts, otlptracegrpc.WithEndpoint(c.Endpoint))
	}
	if c.Insecure {
		opts = append(opts, otlptracegrpc.WithInsecure())
	} else {
		t, err := c.TLSConfig.client()
		if err != nil {
			return nil, fmt.Errorf("config: tls_config: %w", err)
		}
		opts = append(opts, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(t)))
	}
	if c.ReconnectionPeriod != 0 {
		opts = append(opts, otlptracegrpc.WithReconnectionPeriod(c.ReconnectionPeriod))
	}
	if c.Timeout != 0 {
		opts = append(opts, otlptracegrpc.WithTimeout(c.Timeout))
	}
	switch c.Compression {
	case "", "none":
	case "gzip":
		opts = append(opts, otlptracegrpc.WithCompressor("gzip"))
	default:
		return nil, fmt.Errorf("config: compression %s is not supported: use gzip or none", c.Compression)
	}
	if r := c.RetryConfig; r.Enabled {
		opts = append(opts, otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: r.InitialInterval, MaxInterval: r.MaxInterval, MaxElapsedTime: r.MaxElapsedTime,
		}))
	}
	if len(c.Headers) > 0 {
		opts = append(opts, otlptracegrpc.WithHeaders(c.Headers))
	}
	return opts, nil
}

// sampler follows Thanos's names. Unlike there, a name that is not known is an error and not "everything".
func (c *otlpConfig) sampler() (sdktrace.Sampler, error) {
	kind := strings.ToLower(c.SamplerType)
	ratio := 1.0
	if strings.HasSuffix(kind, "traceidratiobased") {
		var err error
		if ratio, err = strconv.ParseFloat(c.SamplerParam, 64); err != nil || ratio < 0 || ratio > 1 {
			return nil, fmt.Errorf("config: sampler_param %q is not a ratio between 0 and 1", c.SamplerParam)
		}
	}
	switch kind {
	case "alwayssample":
		return sdktrace.AlwaysSample(), nil
	case "neversample":
		return sdktrace.NeverSample(), nil
	case "traceidratiobased":
		return sdktrace.TraceIDRatioBased(ratio), nil
	case "parentbasedneversample":
		return sdktrace.ParentBased(sdktrace.NeverSample()), nil
	case "", "parentbasedalwayssample", "parentbasedtraceidratiobased":
		return sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio)), nil
	}
	return nil, fmt.Errorf("config: sampler_type %q is not known", c.SamplerType)
}

func (c tlsConfig) client() (*tls.Config, error) {
	t := &tls.Config{ServerName: c.ServerName, InsecureSkipVerify: c.InsecureSkipVerify, MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s holds no certificate", c.CAFile)
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, errors.New("cert_file and key_file must be given together")
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file and key_file: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}
