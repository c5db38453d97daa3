package telemetry

import (
	"context"
	"log/slog"
	"maps"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"

	"larder/internal/redaction"
)

// journalHandler writes records to the systemd journal. Attributes become fields named
// THANOS_<KEY>, same as in Thanos.
type journalHandler struct {
	level  slog.Level
	send   func(message string, priority journal.Priority, fields map[string]string) error
	fields map[string]string // of With; immutable
	group  string            // prefix of keys
}

func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level
}

func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	fields := make(map[string]string, len(h.fields)+r.NumAttrs())
	maps.Copy(fields, h.fields)
	r.Attrs(func(a slog.Attr) bool {
		addFields(fields, h.group, a)
		return true
	})
	message := r.Message
	if message == "" {
		message = "(no message)" // the journal rejects an empty message
	}
	return h.send(redaction.Text(message), priority(r.Level), fields)
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.fields = make(map[string]string, len(h.fields)+len(attrs))
	maps.Copy(with.fields, h.fields)
	for _, a := range attrs {
		addFields(with.fields, h.group, a)
	}
	return &with
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.group += name + "_"
	return &with
}

func addFields(fields map[string]string, group string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() != slog.KindGroup {
		fields[fieldName(group+a.Key)] = redactedValue(v).String()
		return
	}
	if a.Key != "" {
		group += a.Key + "_"
	}
	for _, m := range v.Group() {
		addFields(fields, group, m)
	}
}

// fieldName returns a name that the journal accepts: A to Z, digits, and underscores except in the
// first place.
func fieldName(key string) string {
	return "THANOS_" + strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		}
		return '_'
	}, key)
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
