package catalog

import (
	"testing"
	"time"
)

func TestTimeOrDuration(t *testing.T) {
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	f := func(s string, want time.Time, text string) {
		t.Helper()
		var v TimeOrDuration
		if err := v.Set(s); err != nil {
			t.Errorf("%q: %v", s, err)
			return
		}
		if got := v.Millis(now, 0); got != want.UnixMilli() {
			t.Errorf("%q: got %v, want %v", s, time.UnixMilli(got).UTC(), want)
		}
		if got := v.String(); got != text {
			t.Errorf("%q: prints as %q, want %q", s, got, text)
		}
		if again, err := ParseTimeOrDuration(v.String()); err != nil ||
			again.Millis(now, 0) != v.Millis(now, 0) {
			t.Errorf("%q: prints as %q, which reads as %v, %v", s, v.String(), again, err)
		}
	}
	f("2026-01-02T15:04:05Z", time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC), "2026-01-02T15:04:05Z")
	f(
		"2026-01-02T15:04:05.5+02:00", time.Date(2026, 1, 2, 13, 4, 5, 5e8, time.UTC),
		"2026-01-02T15:04:05.5+02:00",
	)
	f("0000-01-01T00:00:00Z", time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), "0000-01-01T00:00:00Z")
	f(
		"9999-12-31T23:59:59Z", time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		"9999-12-31T23:59:59Z",
	)
	f("-6w", now.Add(-6*7*24*time.Hour), "-6w")
	f("2h30m", now.Add(150*time.Minute), "2h30m")
	f("-300ms", now.Add(-300*time.Millisecond), "-300ms")
	f("0", now, "0s")
	for _, bad := range []string{"", "-", "yesterday", "6", "1.5h", "--6w", "2026-01-02"} {
		v := TimeOrDuration{kind: timeRelative, dur: time.Hour}
		if err := v.Set(bad); err == nil || v.dur != time.Hour {
			t.Errorf("%q: got error %v, value %v", bad, err, v)
		}
	}
	var unset TimeOrDuration
	if unset.Millis(now, 42) != 42 || !unset.IsZero() || unset.String() != "" {
		t.Errorf("zero value: %v", unset)
	}
}
