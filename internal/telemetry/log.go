package telemetry

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"larder/internal/redaction"
)

// redactedValue returns v with secrets in its text hidden, or v itself if there are none.
func redactedValue(v slog.Value) slog.Value {
	if v.Kind() != slog.KindString && v.Kind() != slog.KindAny {
		return v
	}
	text := v.String()
	if t := redaction.Text(text); t != text {
		return slog.StringValue(t)
	}
	return v
}

// LogFormats lists the formats that NewLogger accepts.
func LogFormats() []string { return []string{"logfmt", "json", "journald"} }

// LogLevels lists the levels that NewLogger accepts, the most severe first.
func LogLevels() []string { return []string{"error", "warn", "info", "debug"} }

// NewLogger returns a logger that writes one line per record to w. Format journald writes to the
// systemd journal instead, which must exist. The logger hides the secrets that redaction.Text
// finds.
func NewLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var lvl slog.Level
	switch level {
	case "error":
		lvl = slog.LevelError
	case "warn":
		lvl = slog.LevelWarn
	case "info":
		lvl = slog.LevelInfo
	case "debug":
		lvl = slog.LevelDebug
	default:
		return nil, fmt.Errorf(
			"unknown log level %q, want one of %s", level, strings.Join(LogLevels(), ", "),
		)
	}
	opts := &slog.HandlerOptions{Level: lvl, ReplaceAttr: thanosKeys(format == "json")}
	switch format {
	case "logfmt":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	case "journald":
		if !journal.Enabled() {
			return nil, errors.New(
				"journald: this machine has no systemd journal: use logfmt or json",
			)
		}
		return slog.New(&journalHandler{level: lvl, send: journal.Send}), nil
	}
	return nil, fmt.Errorf(
		"unknown log format %q, want one of %s", format, strings.Join(LogFormats(), ", "),
	)
}

// thanosKeys renames the fixed keys to Thanos's. Durations are text, or seconds if numbers is set,
// because slog's JSON would print nanoseconds.
func thanosKeys(numbers bool) func([]string, slog.Attr) slog.Attr {
	return func(groups []string, a slog.Attr) slog.Attr { return thanosKey(groups, a, numbers) }
}

func thanosKey(groups []string, a slog.Attr, numbers bool) slog.Attr {
	if len(groups) == 0 {
		switch a.Key {
		case slog.TimeKey:
			return slog.String("ts", a.Value.Time().UTC().Format(time.RFC3339Nano))
		case slog.LevelKey:
			return slog.String("level", strings.ToLower(a.Value.String()))
		}
	}
	a.Value = redactedValue(a.Value)
	if a.Value.Kind() == slog.KindDuration {
		if numbers {
			return slog.Float64(a.Key, a.Value.Duration().Seconds())
		}
		return slog.String(a.Key, a.Value.Duration().String())
	}
	return a
}
