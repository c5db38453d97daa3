package store

import (
	"math"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

func TestMatchersText(t *testing.T) {
	match := func(typ labels.MatchType, name, value string) *labels.Matcher {
		return labels.MustNewMatcher(typ, name, value)
	}
	got := matchersText([]*labels.Matcher{
		match(labels.MatchEqual, "job", `b"read`), match(labels.MatchNotRegexp, "pod", "a|b"),
	})
	if want := `{job="b\"read", pod!~"a|b"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	long := strings.Repeat("x", 1<<16)
	var many []*labels.Matcher
	for range 10_000 {
		many = append(many, match(labels.MatchEqual, long, long))
	}
	got = matchersText(many)
	if len(got) > maxMatchersText+512 || !strings.HasSuffix(got, "more}") {
		t.Errorf("many long matchers: got %d bytes: %s", len(got), got)
	}
}

func TestTimeText(t *testing.T) {
	for ms, want := range map[int64]string{
		0:             "1970-01-01T00:00:00.000Z",
		1767225600123: "2026-01-01T00:00:00.123Z",
		math.MinInt64: "-9223372036854775808",
		math.MaxInt64: "9223372036854775807",
	} {
		if got := timeText(ms); got != want {
			t.Errorf("%d: got %s, want %s", ms, got, want)
		}
	}
}
