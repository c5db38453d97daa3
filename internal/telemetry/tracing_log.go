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

// LogSDK has OpenTelemetry's SDK log to logger. By default the SDK writes to stderr what it cannot
// read of an OTEL_* variable, with the variable's text: a secret, if it is
// OTEL_EXPORTER_OTLP_HEADERS. The SDK has one such logger in a process: only cmd/larder sets it,
// before it calls NewTracing.
func LogSDK(logger *slog.Logger) {
	hidden := sdkVariables()
	otel.SetLogger(logr.FromSlogHandler(sdkHandler{logger, hidden}))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		logger.Warn("tracing", "err", hidden.Error(err))
	}))
}

// sdkVariables are the values of the OTEL_* variables, which no error repeats, but for plain words
// and addresses without a password.
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

// sdkHandler passes on the message and the error of a record that is an error, and no other
// attribute: they hold what could not be read.
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
	h.logger.Warn("tracing", attrs...)
	return nil
}

func (h sdkHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h sdkHandler) WithGroup(string) slog.Handler      { return h }
