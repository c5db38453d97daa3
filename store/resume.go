package store

import (
	"context"
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/pagecache"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/indexheader"
)

const (
	// maxReplans is how often a request is planned again because a block was replaced. The catalog
	// is refreshed each time and then knows all earlier changes. Only a bucket that is being
	// emptied needs more attempts.
	maxReplans = 5
	// maxReshapes is how often a request is planned again because a block was found irregular. Each
	// attempt finds at least one such block. Most are found together, because blocks are read
	// concurrently.
	maxReshapes = 16
)

// repeatCause says why a request may make another attempt.
type repeatCause int

const (
	// noCause: the error is final.
	noCause repeatCause = iota
	// foundIrregular: a block was found irregular, and will be planned as such.
	foundIrregular
	// blockReplaced: a block was deleted from the bucket, or its files have changed. The view is up
	// to date.
	blockReplaced
)

// mayRepeat reports whether another attempt may succeed after err, and why. It counts each cause,
// and returns noCause beyond its bound.
func (r *request) mayRepeat(err error) repeatCause {
	switch {
	case irregular(err):
		if r.reshapes++; r.reshapes <= maxReshapes {
			return foundIrregular
		}
	case r.replans < maxReplans && r.server.replaced(r.ctx, err):
		r.replans++
		return blockReplaced
	}
	return noCause
}

// irregular reports whether err says that a block was found irregular. The block has been marked as
// such, therefore the next attempt can be answered.
func irregular(err error) bool {
	var e *block.IrregularError
	return errors.As(err, &e)
}

// resumed maps the blocks that the request has queried to those that have their series in view: the
// block itself if it is still there, else its replacement. It returns false if there is neither,
// because a series could then be missing from both parts of the answer. Other new blocks are left
// out: see attempt.resume.
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

// replaced reports whether err comes from a block that was deleted since the last sync, or whose
// files have changed. The catalog is then up to date, and the request can be planned again. A block
// that lacks only some files is damaged, not deleted. The request then fails, because an answer
// without the block would be wrong.
func (s *Server) replaced(ctx context.Context, err error) bool {
	if errors.Is(err, indexheader.ErrReplaced) {
		return true // by a block of the same ID, which is in the view
	}
	var be *block.Error
	if !errors.As(err, &be) {
		return false
	}
	if block.Doubtful(err) {
		return s.measured(ctx, be, err)
	}
	if !errors.Is(err, pagecache.ErrNotFound) && !errors.Is(err, indexheader.ErrNotFound) {
		return false
	}
	meta := s.opts.Catalog.View().ByID(be.ID)
	if meta != nil {
		gone, gerr := s.block(meta).Gone(ctx)
		if gerr == nil && !gone {
			// meta.json may list a chunk file under a wrong name.
			return s.measured(ctx, be, err)
		}
		if gerr != nil {
			s.log.Warn("cannot check whether a block was deleted from the bucket",
				"block", be.ID, "err", gerr, "missing", err)
			return false
		}
		s.log.Warn("block was deleted from the bucket, planning the request again",
			"block", be.ID, "err", err)
		s.opts.Catalog.Tombstone(be.ID)
	}
	return s.opts.Catalog.Refresh(ctx) == nil
}

// measured asks the bucket for the sizes of a block's files because of err. It reports whether they
// have changed.
func (s *Server) measured(ctx context.Context, be *block.Error, err error) bool {
	sizes := s.opts.Blocks.Sizes
	if sizes == nil {
		return false
	}
	doubt := catalog.SizeDoubt
	switch {
	case errors.Is(err, pagecache.ErrNotFound):
		doubt = catalog.NameDoubt
	case block.Corrupt(err):
		doubt = catalog.BytesDoubt
	}
	verdict, merr := sizes.Measure(ctx, be.ID, be.Content, doubt)
	var changed *pagecache.ChangedError
	if errors.As(err, &changed) && verdict == catalog.Confirmed && merr == nil &&
		s.opts.IgnoreSizes != nil {
		s.log.Error("bucket answers state wrong object sizes, sizes are no longer compared",
			"block", be.ID, "err", err)
		s.opts.IgnoreSizes()
		return true
	}
	return verdict == catalog.Changed
}
