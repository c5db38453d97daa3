package main

import (
	"context"
	"errors"
	"log/slog"
)

// webLog handles the log of the library that applies the web configuration. The library reads the
// file for each request, and its errors about a broken file repeat values. webLog hides them.
type webLog struct {
	slog.Handler
	file webFile
}

func (l webLog) Handle(ctx context.Context, r slog.Record) error {
	told := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "err" && l.file != "" {
			a = slog.Any("err", l.file.wrap(errors.New(a.Value.String())))
		}
		told.AddAttrs(a)
		return true
	})
	return l.Handler.Handle(ctx, told)
}

func (l webLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return webLog{l.Handler.WithAttrs(attrs), l.file}
}

func (l webLog) WithGroup(name string) slog.Handler {
	return webLog{l.Handler.WithGroup(name), l.file}
}
