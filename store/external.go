package store

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"larder/store/catalog"
)

// seriesMatchers returns the matchers that the series of a block must match: those of labels that
// are not external labels of the block. It returns false if an external label does not match.
func seriesMatchers(ms []*labels.Matcher, external labels.Labels) ([]*labels.Matcher, bool) {
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

// dropLabels returns external without the named labels.
func dropLabels(external labels.Labels, without []string) labels.Labels {
	if len(without) == 0 {
		return external
	}
	return labels.NewBuilder(external).Del(without...).Labels()
}

// blockMatches reports whether a block's external labels and ULID match the block matchers in a
// request's hints.
func blockMatches(b *catalog.Block, ms []*labels.Matcher) bool {
	return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool {
		if m.Name == catalog.BlockIDLabel {
			return !m.Matches(b.ID.String())
		}
		return !m.Matches(b.Labels.Get(m.Name))
	})
}
