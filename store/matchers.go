package store

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/store/catalog"
	"larder/store/storepb"
)

// promMatchers translates matchers, compiling regular expressions that cache does not have, within what held is given. Its errors go through refusal.
func promMatchers(cache *matcherCache, held *text, ms []*storepb.LabelMatcher) ([]*labels.Matcher, error) {
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
			return nil, fmt.Errorf("unrecognized label matcher type %d of label %q", m.GetType(), clipped(m.GetName()))
		}
		value := m.GetValue()
		if t == labels.MatchRegexp || t == labels.MatchNotRegexp {
			value = withoutGroup(value)
		}
		pm, err := cache.matcher(t, m.GetName(), value, held)
		if err != nil {
			return nil, fmt.Errorf("matcher of label %q: %w", clipped(m.GetName()), err)
		}
		out = append(out, pm)
	}
	return out, nil
}

// maxClipped is how much of a text of a request an error repeats, in bytes.
const maxClipped = 512

// clipped returns a text of a request as errors repeat it: errors are sent, logged and traced.
func clipped(s string) string {
	if len(s) <= maxClipped {
		return s
	}
	return fmt.Sprintf("%s... (%d bytes)", strings.ToValidUTF8(s[:maxClipped], "\uFFFD"), len(s))
}

// maxNames is far beyond the replica labels and the labels of a query's grouping that there are; each name is looked at for every block.
const maxNames = 1000

// fewNames refuses a list of label names that means harm.
func fewNames(field string, names []string) error {
	if len(names) > maxNames {
		return status.Errorf(codes.InvalidArgument, "%d names in %s, more than %d", len(names), field, maxNames)
	}
	return nil
}

// maxMatchers is far beyond any query; each is looked at for every block and, where it is pending, for every series.
const maxMatchers = 10_000

// withoutExternal returns the matchers that the external labels of a block leave to be asked of its series, false if they already
// exclude the block.
func withoutExternal(ms []*labels.Matcher, external labels.Labels) ([]*labels.Matcher, bool) {
	var out []*labels.Matcher
	for _, m := range ms {
		v := external.Get(m.Name)
		if v == "" {
			out = append(out, m)
		} else if !m.Matches(v) {
			return nil, false
		}
	}
	return out, true
}

// externalWithout returns external without the named labels.
func externalWithout(external labels.Labels, without []string) labels.Labels {
	if len(without) == 0 {
		return external
	}
	return labels.NewBuilder(external).Del(without...).Labels()
}

// blockMatches reports whether a block's external labels and ULID match the block matchers of a request's hints.
func blockMatches(b *catalog.Block, ms []*labels.Matcher) bool {
	return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool {
		if m.Name == catalog.BlockIDLabel {
			return !m.Matches(b.ID.String())
		}
		return !m.Matches(b.Labels.Get(m.Name))
	})
}
