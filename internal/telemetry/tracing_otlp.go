package telemetry

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/credentials"

	"larder/internal/clienttls"
	"larder/internal/redaction"
)

// otlpConfig has Thanos's keys for type OTLP, and SpansPerRequest.
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
	RetryConfig        retryConfig       `yaml:"retry_config"`
	Headers            map[string]string `yaml:"headers"`
	TLSConfig          clienttls.Config  `yaml:"tls_config"`
	SamplerType        string            `yaml:"sampler_type"`
	SamplerParam       string            `yaml:"sampler_param"`
	SpansPerRequest    int               `yaml:"spans_per_request"`
}

type retryConfig struct {
	Enabled         bool          `yaml:"retry_enabled"`
	InitialInterval time.Duration `yaml:"retry_initial_interval"`
	MaxInterval     time.Duration `yaml:"retry_max_interval"`
	MaxElapsedTime  time.Duration `yaml:"retry_max_elapsed_time"`
}

// orDefaults fills in the defaults of OpenTelemetry.
func (r retryConfig) orDefaults() retryConfig {
	r.InitialInterval = cmp.Or(r.InitialInterval, 5*time.Second)
	r.MaxInterval = cmp.Or(r.MaxInterval, 30*time.Second)
	r.MaxElapsedTime = cmp.Or(r.MaxElapsedTime, time.Minute)
	return r
}

// exporter returns the client that sends spans.
func (c *otlpConfig) exporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	shown := redaction.Address(c.Endpoint)
	if scheme, _, ok := strings.Cut(c.Endpoint, "://"); ok &&
		(scheme == "http" || scheme == "https") {
		return nil,
			fmt.Errorf("config: endpoint %s: want host:port, "+
				"and insecure: true if the collector has no TLS", shown)
	}
	if shown != c.Endpoint { // clients cannot connect to it and would log it
		return nil, fmt.Errorf("config: endpoint %s has a user, a password or a query: "+
			"want only host:port, and credentials in headers", shown)
	}
	gzip := false
	switch c.Compression {
	case "", "none":
	case "gzip":
		gzip = true
	default:
		return nil, fmt.Errorf("config: compression %s is not supported: use gzip or none",
			redaction.Value(c.Compression))
	}
	var secure *tls.Config
	if !c.Insecure {
		var err error
		if secure, _, err = c.TLSConfig.Open(time.Now()); err != nil {
			return nil, fmt.Errorf("config: tls_config: %w", err)
		}
	}
	switch c.ClientType {
	case "", "grpc":
		if c.URLPath != "" {
			return nil, errors.New("config: url_path needs client_type http")
		}
		return otlptracegrpc.New(ctx, c.grpcOptions(secure, gzip)...)
	case "http":
		if c.ReconnectionPeriod != 0 {
			return nil, errors.New("config: reconnection_period needs client_type grpc")
		}
		return otlptracehttp.New(ctx, c.httpOptions(secure, gzip)...)
	}
	return nil, fmt.Errorf("config: client_type %s is not supported: use grpc or http",
		redaction.Value(c.ClientType))
}

func (c *otlpConfig) grpcOptions(secure *tls.Config, gzip bool) []otlptracegrpc.Option {
	var opts []otlptracegrpc.Option
	if c.Endpoint != "" {
		opts = append(opts, otlptracegrpc.WithEndpoint(c.Endpoint))
	}
	if secure == nil {
		opts = append(opts, otlptracegrpc.WithInsecure())
	} else {
		opts = append(opts, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(secure)))
	}
	if c.ReconnectionPeriod != 0 {
		opts = append(opts, otlptracegrpc.WithReconnectionPeriod(c.ReconnectionPeriod))
	}
	if c.Timeout != 0 {
		opts = append(opts, otlptracegrpc.WithTimeout(c.Timeout))
	}
	if gzip {
		opts = append(opts, otlptracegrpc.WithCompressor("gzip"))
	}
	if c.RetryConfig.Enabled {
		opts = append(
			opts, otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig(c.RetryConfig.orDefaults())),
		)
	}
	if len(c.Headers) > 0 {
		opts = append(opts, otlptracegrpc.WithHeaders(c.Headers))
	}
	return opts
}

func (c *otlpConfig) httpOptions(secure *tls.Config, gzip bool) []otlptracehttp.Option {
	var opts []otlptracehttp.Option
	if c.Endpoint != "" {
		opts = append(opts, otlptracehttp.WithEndpoint(c.Endpoint))
	}
	if secure == nil {
		opts = append(opts, otlptracehttp.WithInsecure())
	} else {
		opts = append(opts, otlptracehttp.WithTLSClientConfig(secure))
	}
	if c.URLPath != "" {
		opts = append(opts, otlptracehttp.WithURLPath(c.URLPath))
	}
	if c.Timeout != 0 {
		opts = append(opts, otlptracehttp.WithTimeout(c.Timeout))
	}
	if gzip {
		opts = append(opts, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	}
	if c.RetryConfig.Enabled {
		opts = append(
			opts, otlptracehttp.WithRetry(otlptracehttp.RetryConfig(c.RetryConfig.orDefaults())),
		)
	}
	if len(c.Headers) > 0 {
		opts = append(opts, otlptracehttp.WithHeaders(c.Headers))
	}
	return opts
}

// samplers lists Thanos's names of samplers.
const samplers = "alwayssample, neversample, traceidratiobased, parentbasedalwayssample, " +
	"parentbasedneversample, parentbasedtraceidratiobased"

// sampler returns the configured sampler. An invalid value is not an error, same as in Thanos: it
// is replaced by a value that samples more, and returned in replaced.
func (c *otlpConfig) sampler() (sdktrace.Sampler, []Replaced) {
	kind := strings.ToLower(c.SamplerType)
	var replaced []Replaced
	ratio := 1.0
	if strings.HasSuffix(kind, "traceidratiobased") {
		r, err := strconv.ParseFloat(c.SamplerParam, 64)
		switch {
		case err == nil && r >= 0 && r <= 1:
			ratio = r
		case err == nil && r < 0:
			ratio = 0
			replaced = append(replaced, Replaced{"sampler_param", redaction.Value(c.SamplerParam),
				wantRatio, "0"})
		default: // too large, NaN or not a number
			replaced = append(replaced, Replaced{"sampler_param", redaction.Value(c.SamplerParam),
				wantRatio, "1"})
		}
	}
	switch kind {
	case "alwayssample":
		return sdktrace.AlwaysSample(), replaced
	case "neversample":
		return sdktrace.NeverSample(), replaced
	case "traceidratiobased":
		return sdktrace.TraceIDRatioBased(ratio), replaced
	case "parentbasedneversample":
		return sdktrace.ParentBased(sdktrace.NeverSample()), replaced
	case "", "parentbasedalwayssample", "parentbasedtraceidratiobased":
	default:
		replaced = append(replaced, Replaced{"sampler_type", redaction.Value(c.SamplerType),
			"one of " + samplers, "parentbasedalwayssample"})
	}
	return sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio)), replaced
}

const wantRatio = "a ratio from 0 to 1"
