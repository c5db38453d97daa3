package matcher

import (
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"larder/store/storepb"
)

// Parse translates matchers, compiling regular expressions that cache does not have, within what held is given. Its errors go through refusal.
func Parse(cache *Cache, held *Budget, ms []*storepb.LabelMatcher) ([]*labels.Matcher, error) {
	if len(ms) > maxMatchers {
		return nil, fmt.Errorf("%d matchers, more than %d", len(ms), maxMatchers)
	}
	out := make([]*labels.Matcher, 0, len(ms))
	for _, m := range ms {
		var t labels.MatchType
		switch m.GetType() {
		case storepb.LabelMatcher_EQ:
			t = labels.MatchEqual
		case storepb.LabelMatcher_NEQ:
			t = labels.MatchNotEqual
		case storepb.LabelMatcher_RE:
			t = labels.MatchRegexp
		case storepb.LabelMatcher_NRE:
			t = labels.MatchNotRegexp
		default:
			return nil, fmt.Errorf("unrecognized label matcher type %d of label %q", m.GetType(), Clip(m.GetName()))
		}
		value := m.GetValue()
		if t == labels.MatchRegexp || t == labels.MatchNotRegexp {
			value = withoutGroup(value)
		}
		pm, err := cache.matcher(t, m.GetName(), value, held)
		if err != nil {
			return nil, fmt.Errorf("matcher of label %q: %w", Clip(m.GetName()), err)
		}
		out = append(out, pm)
	}
	return out, nil
}

// maxClipped is how much of a text of a request an error repeats, in bytes.
const maxClipped = 512

// Clip returns a text of a request as errors repeat it: errors are sent, logged and traced.
func Clip(s string) string {
	if len(s) <= maxClipped {
		return s
	}
	return fmt.Sprintf("%s... (%d bytes)", strings.ToValidUTF8(s[:maxClipped], "\uFFFD"), len(s))
}

// maxMatchers is far beyond any query; each is looked at for every block and, where it is pending, for every series.
const maxMatchers = 10_000
