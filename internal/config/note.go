package config

import "log/slog"

// Note is a log line about a flag, or a key of its document, that does not do what it says.
type Note struct {
	Msg  string // NoEffect, Adjusted or Deprecated
	Flag string
	Key  string // empty if the note is about the flag itself
	Why  string
}

// The messages of notes.
const (
	NoEffect   = "flag accepted without effect"
	Adjusted   = "flag accepted, its value adjusted"
	Deprecated = "flag is deprecated"
)

// Log writes the note to logger.
func (n Note) Log(logger *slog.Logger) {
	attrs := []any{"flag", n.Flag}
	if n.Key != "" {
		attrs = append(attrs, "key", n.Key)
	}
	logger.Info(n.Msg, append(attrs, "why", n.Why)...)
}
