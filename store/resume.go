package store

import (
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"larder/store/block"
	"larder/store/catalog"
)

const (
	// maxReplans is how often a request is planned again because a block left the bucket. Each
	// time the catalog is refreshed, and a refresh sees all earlier changes. A request that needs
	// more refreshes reads a bucket that is being emptied.
	maxReplans = 5
	// maxReshapes is how often a request is planned again because a block was found irregular.
	// Each time at least one more is known. The blocks of a request are read concurrently, and are
	// mostly found together.
	maxReshapes = 16
)

// irregular reports whether err says that a block was found irregular. The block is marked by now.
// The same request, planned again, can therefore be answered.
func irregular(err error) bool {
	var e *block.IrregularError
	return errors.As(err, &e)
}

// resumed maps the blocks that the request has queried to their replacements in view. It returns
// false if a block has none that the request asks for, because a series could then be missing from
// both parts of the answer. Other new blocks are left out: see attempt.resume.
func (r *request) resumed(
	q *seriesQuery, view *catalog.View,
) (blocks []*catalog.Block, ok bool) {
	for _, old := range r.attempt.queried {
		cur := old
		if view.ByID(old.ID) != old {
			i := slices.IndexFunc(view.Blocks, func(b *catalog.Block) bool {
				return q.replaces(b, old)
			})
			if i < 0 {
				return nil, false
			}
			cur = view.Blocks[i]
		}
		if !slices.Contains(blocks, cur) {
			blocks = append(blocks, cur)
		}
	}
	return blocks, true
}

// replaces reports whether b can take the place of old in an answer. It must have all series of
// old, give them the same labels, and be asked with the same matchers. Different content under the
// ID of old does not qualify, because its series are unknown.
func (q *seriesQuery) replaces(b, old *catalog.Block) bool {
	if b.ID == old.ID && b.Content != old.Content {
		return false
	}
	if b.Resolution != old.Resolution || !b.HasSourcesOf(old) || !blockMatches(b, q.blockMatchers) {
		return false
	}
	if !labels.Equal(dropLabels(b.Labels, q.without), dropLabels(old.Labels, q.without)) {
		return false
	}
	was, _ := seriesMatchers(q.matchers, old.Labels)
	is, ok := seriesMatchers(q.matchers, b.Labels)
	return ok && slices.Equal(is, was)
}
