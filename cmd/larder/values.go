package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"

	"larder/internal/redaction"
)

// flagger registers flags. It is the application or a command.
type flagger interface {
	Flag(name, help string) *kingpin.FlagClause
}

// value is the value of a flag. Unlike kingpin's values, its errors name the flag.
type value[T any] struct {
	name  string
	p     *T
	parse func(string) (T, error)
	text  string
}

func (v *value[T]) Set(s string) error {
	got, err := v.parse(s)
	if err != nil {
		return refused(v.name, s, err)
	}
	*v.p, v.text = got, s
	return nil
}

// refused returns the error of a flag's value. It hides a value that looks like something else, for
// instance a document given as a size, because it may contain secrets.
func refused(flag, value string, err error) error {
	if len(value) > longestShown || !redaction.Path(value) {
		err = redaction.Hide(err, value)
	}
	return fmt.Errorf("--%s: %w", flag, err)
}

// longestShown is the maximum length of a value that an error repeats.
const longestShown = 64

// String returns the value as given, so that it can be found in a manifest.
func (v *value[T]) String() string { return v.text }

// flag registers a flag. parse converts its text, and def is its default as text, "" for none.
func flag[T any](
	f flagger, name, def string, p *T, parse func(string) (T, error), help string,
) *kingpin.FlagClause {
	c := f.Flag(name, help)
	if def != "" {
		c = c.Default(def)
	} else {
		c = c.PlaceHolder("VALUE") // kingpin would show the name of the flag in capitals
	}
	c.SetValue(&value[T]{name: name, p: p, parse: parse})
	return c
}

// list is the value of a flag that may be repeated.
type list[T any] struct {
	name  string
	p     *[]T
	parse func(string) (T, error)
	texts []string
}

func (l *list[T]) Set(s string) error {
	got, err := l.parse(s)
	if err != nil {
		return refused(l.name, s, err)
	}
	*l.p, l.texts = append(*l.p, got), append(l.texts, s)
	return nil
}

// String returns the values as given.
func (l *list[T]) String() string { return strings.Join(l.texts, ",") }

// IsCumulative tells kingpin that the flag may be repeated.
func (l *list[T]) IsCumulative() bool { return true }

// listFlag registers a flag that may be repeated.
func listFlag[T any](
	f flagger, name string, p *[]T, parse func(string) (T, error), help string,
) *kingpin.FlagClause {
	c := f.Flag(name, help)
	c.SetValue(&list[T]{name: name, p: p, parse: parse})
	return c
}

// boolFlag registers a switch.
func boolFlag(f flagger, name, def string, p *bool, help string) *kingpin.FlagClause {
	c := f.Flag(name, help).Default(def)
	c.BoolVar(p)
	return c
}

func text(s string) (string, error) { return s, nil }

func oneOf(names ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		if !slices.Contains(names, s) {
			return "", fmt.Errorf("got %q, want one of %s", s, strings.Join(names, ", "))
		}
		return s, nil
	}
}

// integer parses a whole number of at least atLeast. It accepts 1e+06, same as Thanos, because
// templates write large numbers so.
func integer(atLeast int) func(string) (int, error) {
	return func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if f, ferr := strconv.ParseFloat(s, 64); err != nil && ferr == nil && f == math.Trunc(f) &&
			math.Abs(f) <= 1<<53 {
			n, err = int(f), nil
		}
		switch {
		case err != nil:
			return 0, fmt.Errorf("%q is not a whole number", s)
		case n < atLeast:
			return 0, fmt.Errorf("%d is too small, want at least %d", n, atLeast)
		}
		return n, nil
	}
}

// between parses a whole number within bounds.
func between(least, most int) func(string) (int, error) {
	return func(s string) (int, error) {
		n, err := integer(least)(s)
		if err == nil && n > most {
			return 0, fmt.Errorf("%d is too large, want at most %d", n, most)
		}
		return n, err
	}
}

// count parses an unsigned number in Go's notations.
func count(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number of at least 0", s)
	}
	return n, nil
}

func number(s string) (float64, error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return n, nil
}

// notNegative parses a number that is 0 or more.
func notNegative(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0) || math.IsInf(v, 1) {
		return 0, fmt.Errorf("got %q, want a number of 0 or more", s)
	}
	return v, nil
}

// ratio parses a number in (0, 1].
func ratio(s string) (float64, error) {
	r, err := strconv.ParseFloat(s, 64)
	if err != nil || !(r > 0 && r <= 1) {
		return 0, fmt.Errorf("%q is not a ratio above 0 and up to 1", s)
	}
	return r, nil
}

// goDuration parses Go's syntax (1h30m), promDuration Prometheus's (1d, 2w). Thanos has flags of
// both kinds.
func goDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration such as 15m or 1h30m", s)
	}
	return d, nil
}

func promDuration(s string) (time.Duration, error) {
	d, err := model.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 30m, 24h or 2d", s)
	}
	return time.Duration(d), nil
}

// positive rejects zero, where zero would have no useful meaning.
func positive[T ~int64](parse func(string) (T, error)) func(string) (T, error) {
	return func(s string) (T, error) {
		v, err := parse(s)
		if err == nil && v <= 0 {
			err = fmt.Errorf("%q must be above zero", s)
		}
		return v, err
	}
}
