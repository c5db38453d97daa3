package telemetry

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/go-kit/log"

	"larder/internal/redaction"
)

// GoKit returns a go-kit logger that writes to logger and hides the values of a document. Object
// store clients need one, and some log their requests with all headers. Nothing else in larder uses
// it.
func GoKit(logger *slog.Logger, hidden redaction.Document) log.Logger {
	return goKit{logger, hidden}
}

type goKit struct {
	logger *slog.Logger
	hidden redaction.Document
}

// Log logs go-kit's alternating keys and values. A record without a level is logged at info, same
// as go-kit's filter.
func (g goKit) Log(keyvals ...any) error {
	level, msg := slog.LevelInfo, ""
	attrs := make([]slog.Attr, 0, len(keyvals)/2)
	for i := 0; i < len(keyvals); i += 2 {
		key := fmt.Sprint(keyvals[i])
		var value any = "(missing)"
		if i+1 < len(keyvals) {
			value = keyvals[i+1]
		}
		switch key {
		case "level":
			if err := level.UnmarshalText([]byte(fmt.Sprint(value))); err != nil {
				level = slog.LevelInfo
			}
		case "msg":
			msg = g.hidden.Text(fmt.Sprint(value))
		// the slog handler writes its own time; go-kit's caller would name this file
		case "ts", "caller":
		default:
			text := fmt.Sprint(value)
			if t := g.hidden.Text(text); t != text {
				value = t
			}
			attrs = append(attrs, slog.Any(key, value))
		}
	}
	g.logger.LogAttrs(context.Background(), level, msg, attrs...)
	return nil
}
