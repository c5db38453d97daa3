package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"larder/internal/redaction"
)

func TestLogfmt(t *testing.T) {
	var buf bytes.Buffer
	logger, err := NewLogger(&buf, "info", "logfmt")
	if err != nil {
		t.Fatal(err)
	}
	logger.Debug("not at this level")
	logger.Warn("sync failed", "err", errors.New("no route"), "took", 1500*time.Millisecond)
	want := regexp.MustCompile(
		`^ts=\d{4}-\d\d-\d\dT[\d:.]+Z level=warn msg="sync failed" err="no route" took=1.5s\n$`,
	)
	if !want.MatchString(buf.String()) {
		t.Errorf("got  %q\nwant a match of %s", buf.String(), want)
	}
}

func TestLogJSON(t *testing.T) {
	var buf bytes.Buffer
	logger, err := NewLogger(&buf, "debug", "json")
	if err != nil {
		t.Fatal(err)
	}
	logger.Debug("opened", "took", 1500*time.Millisecond)
	var got map[string]any
	if err := json.Unmarshal(buf.Bytes(), &got); err != nil {
		t.Fatalf("%v in %q", err, buf.String())
	}
	if _, err := time.Parse(time.RFC3339Nano, fmt.Sprint(got["ts"])); err != nil {
		t.Errorf("ts: %v", err)
	}
	if got["level"] != "debug" || got["msg"] != "opened" || got["took"] != 1.5 {
		t.Errorf("got %v", got)
	}
}

func TestLoggerRefusesUnknownNames(t *testing.T) {
	if _, err := NewLogger(nil, "loud", "json"); err == nil ||
		!strings.Contains(err.Error(), `"loud"`) {
		t.Errorf("level: got %v", err)
	}
	if _, err := NewLogger(nil, "info", "xml"); err == nil ||
		!strings.Contains(err.Error(), `"xml"`) {
		t.Errorf("format: got %v", err)
	}
}

func TestGoKit(t *testing.T) {
	f := func(keyvals []any, want string) {
		t.Helper()
		var buf bytes.Buffer
		logger, err := NewLogger(&buf, "info", "logfmt")
		if err != nil {
			t.Fatal(err)
		}
		if err := GoKit(logger, redaction.NewValues("s3cr3t-9")).Log(keyvals...); err != nil {
			t.Fatal(err)
		}
		_, got, _ := strings.Cut(buf.String(), " ") // the time
		if got != want {
			t.Errorf("Log(%q): got %q, want %q", keyvals, got, want)
		}
	}
	f([]any{"level", "error", "msg", "failed", "code", 503}, "level=error msg=failed code=503\n")
	f([]any{"msg", "no level", "caller", "s3.go:1", "ts", "now"}, "level=info msg=\"no level\"\n")
	f([]any{"level", "debug", "msg", "too quiet"}, "")
	f([]any{"msg", "got s3cr3t-9", "header", "a s3cr3t-9", "n", 9},
		"level=info msg=\"got <REDACTED>\" header=\"a <REDACTED>\" n=9\n")
	f(
		[]any{"level", "odd", "msg", "unknown level", "key"},
		"level=info msg=\"unknown level\" key=(missing)\n",
	)
}

// TestLogHidesSecrets logs secrets in the message, in strings, in errors and in structs.
func TestLogHidesSecrets(t *testing.T) {
	const secret = "hunter2-s3cr3t"
	address := "http://user:" + secret + "@host"
	for _, format := range []string{"logfmt", "json"} {
		var buf bytes.Buffer
		logger, err := NewLogger(&buf, "debug", format)
		if err != nil {
			t.Fatal(err)
		}
		logger.With("with", address).Info("at "+address, "text", address, "err",
			errors.New(address),
			"list", []string{address}, "struct", struct{ URL string }{address}, slog.Group("g",
				"in", address))
		if got := buf.String(); strings.Contains(got, secret) || strings.Count(got, "@host") != 7 {
			t.Errorf("%s: got %s", format, got)
		}
	}
	var sent []string
	send := func(message string, _ journal.Priority, fields map[string]string) error {
		sent = append(sent, message, fmt.Sprint(fields))
		return nil
	}
	slog.New(&journalHandler{send: send}).With("with", address).Info("at "+address, "err",
		errors.New(address))
	if got := fmt.Sprint(sent); strings.Contains(got, secret) || strings.Count(got, "@host") != 3 {
		t.Errorf("journal: got %s", got)
	}
}
