package postings

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

// TestCanonicalMatchers checks that the identity of matchers does not depend on their order and on
// repetitions, and that it depends on everything else.
func TestCanonicalMatchers(t *testing.T) {
	m := labels.MustNewMatcher
	const (
		eq, neq = labels.MatchEqual, labels.MatchNotEqual
		re, nre = labels.MatchRegexp, labels.MatchNotRegexp
	)
	type set []*labels.Matcher
	key := func(ms set) string { return string(AppendCanonical(nil, ms)) }
	same := func(a, b set) {
		t.Helper()
		if key(a) != key(b) {
			t.Errorf("%v and %v differ", a, b)
		}
	}
	same(set{m(eq, "a", "1"), m(re, "b", "2")}, set{m(re, "b", "2"), m(eq, "a", "1")})
	same(set{m(eq, "a", "1"), m(eq, "a", "1")}, set{m(eq, "a", "1")})
	same(
		set{m(neq, "a", ""), m(eq, "a", "1"), m(neq, "a", "")},
		set{m(eq, "a", "1"), m(neq, "a", "")},
	)

	sets := []set{
		nil,
		{m(eq, "a", "1")}, {m(neq, "a", "1")}, {m(re, "a", "1")}, {m(nre, "a", "1")},
		{m(eq, "a", "2")}, {m(eq, "b", "1")}, {m(eq, "a", "")}, {m(eq, "", "a")},
		{m(eq, "a1", "")}, {m(eq, "", "a1")},
		{m(eq, "a", "1"), m(eq, "b", "1")}, {m(eq, "a", "1"), m(eq, "a", "2")},
		{m(eq, "a", "1\x00\x01b\x011")},
	}
	seen := map[string]set{}
	for _, s := range sets {
		if other, ok := seen[key(s)]; ok {
			t.Errorf("%v and %v have the same identity", s, other)
		}
		seen[key(s)] = s
	}

	in := set{m(re, "b", "2"), m(eq, "a", "1")}
	if Canonical(in); in[0].Name != "b" {
		t.Error("Canonical changed its argument")
	}
}
