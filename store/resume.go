package store

import (
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"larder/store/block"
	"larder/store/catalog"
	"larder/store/storepb"
)

const (
	// maxReplans is how often a request is planned anew because a block left the bucket. Refreshes of the catalog are rare and see all that
	// happened before them: a request that needs more of them is one of a bucket that is being emptied.
	maxReplans = 5
	// maxReshapes is how often a request is planned again because a block was found irregular. Each
	// time at least one more is known. The blocks of a request are looked at side by side, and are
	// mostly found together.
	maxReshapes = 16
)

// irregular reports whether err says that a block was found irregular. It is known as such by now,
// so that the same request, planned again, is answered.
func irregular(err error) bool {
	var e *block.IrregularError
	return errors.As(err, &e)
}

// resumed returns what view has of all that the request has looked at: the series that are written already stay, and the rest is answered from
// these blocks. There are none if one is gone for good, or what replaced it is not asked for: a series could be missing from both halves.
// Blocks that have come besides are left out: the answer would have their later series and not their first ones.
func (r *request) resumed(q *seriesQuery, view *catalog.View) (blocks []*catalog.Block, ok bool) {
	for _, old := range r.queried {
		cur := old
		if view.ByID(old.ID) != old {
			i := slices.IndexFunc(view.Blocks, func(b *catalog.Block) bool { return q.takesFor(b, old) })
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

// takesFor reports whether b has all series of old, and the request asks b for what it asked of old: the same labels in its answer, and
// the same matchers of its series. Nobody promises that of other content under old's name.
func (q *seriesQuery) takesFor(b, old *catalog.Block) bool {
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

// noteShape notes what an attempt that failed has written series of. Another one may go on after
// them.
func (r *request) noteShape(plans []*block.Plan, w *storepb.FrameWriter) {
	if w.Stats().Series == 0 {
		return
	}
	for _, p := range plans {
		if p.InIndexOrder() && !slices.Contains(r.inIndexOrder, p.Block()) {
			r.inIndexOrder = append(r.inIndexOrder, p.Block())
		}
	}
}

// sameShape fails an answer that was begun in the index order of a block which is known as
// irregular by now.
func (r *request) sameShape(w *storepb.FrameWriter) error {
	if w.Stats().Series == 0 {
		r.inIndexOrder = nil
	}
	for _, b := range r.inIndexOrder {
		if err := b.Reshaped(); err != nil {
			return err
		}
	}
	return nil
}
