package redaction

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

// redacted is an error whose text was redacted. What it wraps can still be asked for.
type redacted struct {
	text string
	err  error
}

func (e *redacted) Error() string { return e.text }
func (e *redacted) Unwrap() error { return e.err }

// Cause is how the object store clients find their own errors.
func (e *redacted) Cause() error { return e.err }

// Error returns err with the text that Text makes of its text: err itself where nothing is to hide,
// nil for nil.
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

// Hide returns err with Mark in the place of a value that was given, plain and quoted as by %q.
// What is too short to be a secret stays, because it may be a part of words.
func Hide(err error, value string) error {
	if len(value) < shortest {
		return err
	}
	return with(err, func(s string) string { return hide(s, value) })
}

// shortest is the number of bytes that a value has to have to be hidden.
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

// longestPlain is longer than what numbers, sizes, durations and the words of configurations are,
// and shorter than most keys.
const longestPlain = 24

// Plain tells whether a value can be repeated in an error about it: a number with or without a
// unit, or words, and not longer than these are.
func Plain(value string) bool {
	return len(value) <= longestPlain && (word.MatchString(value) || number.MatchString(value))
}

// Path tells whether a text can be the path of a file that was meant to be one: not a document, a
// key or a URL with a password that was given in its place.
func Path(s string) bool {
	return !strings.ContainsAny(s, "\r\n{}") && !strings.Contains(s, ": ") && !strings.Contains(s,
		"-----") && Text(s) == s
}

// Value returns a value that is Plain, and Mark for others.
func Value(value string) string {
	if Plain(value) {
		return value
	}
	return Mark
}

// File returns the error of opening or reading a file without its path if that is none, see Path.
func File(err error) error {
	var file *fs.PathError
	if !errors.As(err, &file) || Path(file.Path) {
		return err
	}
	return fmt.Errorf("got a text of %d bytes that is no path (give the path of a file): %w",
		len(file.Path), file.Err)
}
