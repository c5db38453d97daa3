package redaction

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

// redacted is an error with a redacted text. It wraps the original error.
type redacted struct {
	text string
	err  error
}

func (e *redacted) Error() string { return e.text }
func (e *redacted) Unwrap() error { return e.err }

// Cause returns the original error, for object store clients.
func (e *redacted) Cause() error { return e.err }

// Error applies Text to the text of err. It returns err itself if there is nothing to hide.
func Error(err error) error { return with(err, Text) }

func with(err error, redact func(string) string) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if t := redact(text); t != text {
		return &redacted{t, err}
	}
	return err
}

// Hide replaces value in the text of err by Mark, both plain and quoted as by %q. It does not hide
// values that are too short to be a secret, because they may be parts of words.
func Hide(err error, value string) error {
	if len(value) < shortest {
		return err
	}
	return with(err, func(s string) string { return hide(s, value) })
}

// shortest is the minimum length of a value to hide, in bytes.
const shortest = 4

func hide(text, value string) string {
	quoted := fmt.Sprintf("%q", value)
	text = strings.ReplaceAll(text, value, Mark)
	return strings.ReplaceAll(text, quoted[1:len(quoted)-1], Mark)
}

var (
	word   = regexp.MustCompile(`^[A-Za-z]+([ ._-][A-Za-z]+)*$`)
	number = regexp.MustCompile(`^[-+]?[0-9][0-9.,_:-]*[ ]?[A-Za-z%]{0,4}([0-9]+[a-z]{1,2})*$`)
)

// longestPlain is longer than numbers, sizes, durations and the words of configurations, and
// shorter than most keys.
const longestPlain = 24

// Plain reports whether an error may repeat a value: a short number with or without a unit, or
// short words.
func Plain(value string) bool {
	return len(value) <= longestPlain && (word.MatchString(value) || number.MatchString(value))
}

// Path reports whether a text may be the path of a file, and not a document, a key or a URL with a
// password.
func Path(s string) bool {
	return !strings.ContainsAny(s, "\r\n{}") && !strings.Contains(s, ": ") &&
		!strings.Contains(s, "-----") && Text(s) == s
}

// Value returns value if it is Plain, otherwise Mark.
func Value(value string) string {
	if Plain(value) {
		return value
	}
	return Mark
}

// File removes the path from the error of opening or reading a file if Path reports false for it.
func File(err error) error {
	var file *fs.PathError
	if !errors.As(err, &file) || Path(file.Path) {
		return err
	}
	return fmt.Errorf("got a text of %d bytes that is not a path (want the path of a file): %w",
		len(file.Path), file.Err)
}
