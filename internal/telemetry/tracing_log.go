package telemetry

import (
	"context"
	"log/slog"
	"os"
	"strings"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"

	"larder/internal/redaction"
)

// LogSDK makes OpenTelemetry's SDK log to logger. By default the SDK writes OTEL_* variables that
// it cannot parse to stderr, and OTEL_EXPORTER_OTLP_HEADERS contains secrets. The logger of the SDK
// belongs to the process: only cmd/larder sets it, before it calls NewTracing.
func LogSDK(logger *slog.Logger) {
	hidden := sdkVariables()
	otel.SetLogger(logr.FromSlogHandler(sdkHandler{logger, hidden}))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		logger.Warn("tracing failed", "err", hidden.Error(err))
	}))
}

// sdkVariables returns the values of the OTEL_* variables, which errors must not repeat. Plain
// words and addresses without a password may be shown.
func sdkVariables() redaction.Document {
	var values []string
	for _, pair := range os.Environ() {
		name, v, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "OTEL_") {
			continue
		}
		if strings.HasSuffix(name, "_ENDPOINT") && redaction.Address(v) == v {
			continue
		}
		values = append(values, v)
	}
	return redaction.NewValues(values...)
}

// sdkHandler passes on the message and the error of error records. It drops other attributes,
// because they contain the values that could not be parsed.
type sdkHandler struct {
	logger *slog.Logger
	hidden redaction.Document
}

func (h sdkHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelError
}

func (h sdkHandler) Handle(_ context.Context, r slog.Record) error {
	attrs := []any{"what", r.Message}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "err" {
			attrs = append(attrs, "err", h.hidden.Text(a.Value.String()))
		}
		return true
	})
	h.logger.Warn("tracing failed", attrs...)
	return nil
}

func (h sdkHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h sdkHandler) WithGroup(string) slog.Handler      { return h }
