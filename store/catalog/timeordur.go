package catalog

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// TimeOrDuration is a flag value for a time, either RFC 3339 ("2026-01-02T15:04:05Z") or a duration
// relative to the time of use ("-6w", "2h30m", with the units of Prometheus). The zero value is
// unset.
type TimeOrDuration struct {
	kind timeKind
	time time.Time
	dur  time.Duration
}

type timeKind uint8

const (
	timeUnset timeKind = iota
	timeAbsolute
	timeRelative
)

// ParseTimeOrDuration parses s.
func ParseTimeOrDuration(s string) (TimeOrDuration, error) {
	if s == "" {
		return TimeOrDuration{}, errors.New(
			"empty: want an RFC 3339 time or a duration such as -6w",
		)
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return TimeOrDuration{kind: timeAbsolute, time: t}, nil
	}
	digits, negative := strings.CutPrefix(s, "-")
	d, err := model.ParseDuration(digits)
	if err != nil {
		return TimeOrDuration{}, fmt.Errorf(
			"%q is neither an RFC 3339 time nor a duration such as -6w", s,
		)
	}
	if negative {
		d = -d
	}
	return TimeOrDuration{kind: timeRelative, dur: time.Duration(d)}, nil
}

// Set parses s into t.
func (t *TimeOrDuration) Set(s string) error {
	parsed, err := ParseTimeOrDuration(s)
	if err != nil {
		return err
	}
	*t = parsed
	return nil
}

// String returns t in the format of ParseTimeOrDuration, "" for the zero value.
func (t TimeOrDuration) String() string {
	switch t.kind {
	case timeAbsolute:
		return t.time.Format(time.RFC3339Nano)
	case timeRelative:
		if t.dur < 0 {
			return "-" + model.Duration(-t.dur).String()
		}
		return model.Duration(t.dur).String()
	}
	return ""
}

// IsZero reports whether t is unset.
func (t TimeOrDuration) IsZero() bool { return t.kind == timeUnset }

// Millis returns the time in milliseconds since 1970, or unset if t is the zero value.
func (t TimeOrDuration) Millis(now time.Time, unset int64) int64 {
	switch t.kind {
	case timeAbsolute:
		return t.time.UnixMilli()
	case timeRelative:
		return now.Add(t.dur).UnixMilli()
	}
	return unset
}
