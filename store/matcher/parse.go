package matcher

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"

	"larder/store/storepb"
)

// maxMatchers bounds the matchers of a list. It is far beyond any query. Each matcher is compared
// with every block and, if it is pending, with every series.
const maxMatchers = 10_000

// Parse translates matchers. It takes compiled expressions from cache, which may be nil, and
// compiles the others; budget holds what they need. An error without a gRPC status is a mistake of
// the client.
func Parse(
	cache *Cache, budget *Budget, ms []*storepb.LabelMatcher,
) ([]*labels.Matcher, error) {
	if len(ms) > maxMatchers {
		return nil, fmt.Errorf("%d matchers, more than %d", len(ms), maxMatchers)
	}
	out := make([]*labels.Matcher, 0, len(ms))
	for _, m := range ms {
		var kind labels.MatchType
		switch m.GetType() {
		case storepb.LabelMatcher_EQ:
			kind = labels.MatchEqual
		case storepb.LabelMatcher_NEQ:
			kind = labels.MatchNotEqual
		case storepb.LabelMatcher_RE:
			kind = labels.MatchRegexp
		case storepb.LabelMatcher_NRE:
			kind = labels.MatchNotRegexp
		default:
			return nil, fmt.Errorf("unrecognized label matcher type %d of label %q",
				m.GetType(), Clip(m.GetName()))
		}
		value := m.GetValue()
		if kind == labels.MatchRegexp || kind == labels.MatchNotRegexp {
			value = ungroup(value)
		}
		parsed, err := budget.matcher(cache, kind, m.GetName(), value)
		if err != nil {
			return nil, fmt.Errorf("matcher of label %q: %w", Clip(m.GetName()), err)
		}
		out = append(out, parsed)
	}
	return out, nil
}

// matcher returns a matcher from cache, or compiles it.
//
// INVARIANT: an expression is measured, and what it needs is reserved, before it is compiled. A
// cached expression reserves as much as a new one, because the outcome of a request must not depend
// on the cache.
func (b *Budget) matcher(
	cache *Cache, kind labels.MatchType, name, value string,
) (*labels.Matcher, error) {
	if kind != labels.MatchRegexp && kind != labels.MatchNotRegexp {
		return labels.NewMatcher(kind, name, value)
	}
	if e := cache.get(cacheKey{kind, name, value}); e != nil {
		if err := b.reserve(e.cost); err != nil {
			return nil, err
		}
		b.reservation.Release(e.cost.compiling)
		return e.matcher, nil
	}
	if !isList(value) {
		release, err := b.reserveParsing(value)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	c, err := measure(value)
	if err != nil {
		return nil, err
	}
	if err := b.reserve(c); err != nil {
		return nil, err
	}
	defer b.reservation.Release(c.compiling)
	m, err := labels.NewMatcher(kind, name, value)
	if err != nil {
		return nil, errors.New(Clip(err.Error()))
	}
	cache.add(&entry{m, c})
	return m, nil
}
