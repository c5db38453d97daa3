package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"larder/internal/pagecache"
	"larder/store/postings"
)

// SeriesStream returns the segments of one block in the order of the final labels. It is used by
// one goroutine.
type SeriesStream interface {
	// Next returns the next segment, which is never empty, and io.EOF after the last one.
	Next() (*Segment, error)
	// Stats returns what was decoded, matched and returned so far.
	Stats() StreamStats
	// Close ends the stream's reads and waits for them. No other method may run.
	Close()
}

// setStream is the series stream of a plan with a series set, complete or under construction. It
// returns the request's part of each segment of the set. If the construction ends early, it
// continues with a stream of its own.
type setStream struct {
	ctx  context.Context
	plan *Plan
	opts StreamOptions
	lazy bool // the request is charged for series that match instead of postings

	at    int  // the next segment of the set
	tail  bool // bytes after the last segment were charged
	stats StreamStats

	// What the request was charged for and what was returned, so that a stream of its own does not
	// charge or return it again.
	series, chunks int
	bytes          int64
	returned       int64

	own      *Stream
	ownPages pagecache.Account // of own, until it is moved to opts.Account
	skip     int64             // series of own to skip, because they were returned before
}

func newSetStream(ctx context.Context, p *Plan, opts StreamOptions) *setStream {
	s := &setStream{ctx: ctx, plan: p, opts: opts, lazy: p.Lazy()}
	if p.set != nil {
		s.lazy = p.set.lazy
	}
	return s
}

// Next implements SeriesStream.
func (s *setStream) Next() (*Segment, error) {
	for s.own == nil {
		if err := s.ctx.Err(); err != nil {
			return nil, err
		}
		seg, err := s.nextOfSet()
		switch {
		case errors.Is(err, errBuildEnded):
			s.continueAlone()
			continue
		case err != nil:
			return nil, err
		}
		part := seg.part(&s.opts)
		if err := s.count(seg, part); err != nil {
			return nil, err
		}
		if part.seg != nil {
			n := int64(part.seg.Len())
			s.stats.Series += n
			s.returned += n
			return part.seg, nil
		}
	}
	return s.nextOfOwn()
}

// nextOfSet returns the next segment of the set, io.EOF after the last one, and errBuildEnded if
// the construction ended early.
func (s *setStream) nextOfSet() (*setSegment, error) {
	var tail int64
	if set := s.plan.set; set != nil {
		if s.at < len(set.segments) {
			s.at++
			return set.segments[s.at-1], nil
		}
		tail = set.tailBytes
	} else {
		got, err := s.plan.build.segment(s.ctx, s.at)
		if cerr := s.addCredit(got.credit); cerr != nil {
			return nil, cerr
		}
		if err == nil {
			s.at++
			return got.segment, nil
		}
		if !errors.Is(err, io.EOF) {
			return nil, err
		}
		tail = got.tailBytes
	}
	if !s.tail {
		s.tail = true
		if err := s.charge(tail); err != nil {
			return nil, err
		}
	}
	return nil, io.EOF
}

// addCredit counts work that was done for the set as work of this request. Only this request is
// charged for bytes that were read from the bucket beyond those that were needed.
func (s *setStream) addCredit(c *setCredit) error {
	if c == nil {
		return nil
	}
	s.stats.Add(c.stats)
	if s.opts.Account != nil {
		c.pages.MoveTo(s.opts.Account)
	}
	return s.charge(c.excess)
}

// charge charges bytes of index pages to the request.
func (s *setStream) charge(bytes int64) error {
	s.bytes += bytes
	if err := postings.Charge(s.opts.Account, bytes); err != nil {
		return s.plan.block.wrap(fmt.Errorf("series set: %w", err))
	}
	return nil
}

// count charges the request for its part of a segment.
func (s *setStream) count(seg *setSegment, p part) error {
	if err := s.charge(seg.seriesBytes); err != nil {
		return err
	}
	s.stats.Matched += int64(p.matched)
	s.stats.OutOfRange += int64(seg.Len() - p.matched)
	if s.lazy && s.opts.OnSeries != nil {
		s.series += p.matched
		if err := s.opts.OnSeries(p.matched); err != nil {
			return err
		}
	}
	if p.seg != nil && !s.opts.SkipChunks && s.opts.OnChunks != nil {
		s.chunks += p.chunks
		return s.opts.OnChunks(p.chunks)
	}
	return nil
}

// continueAlone starts a stream of the request's own, with the plan of the set.
func (s *setStream) continueAlone() {
	opts := s.opts
	opts.OnSeries = forgive(opts.OnSeries, s.series)
	opts.OnChunks = forgive(opts.OnChunks, s.chunks)
	if a := opts.Account; a != nil {
		if a.Spend != nil {
			s.ownPages.Spend = forgiveBytes(a.Spend, s.bytes)
		}
		opts.Account = &s.ownPages
	}
	s.skip = s.returned
	s.own = s.plan.decode(s.ctx, opts)
}

// forgive returns f without the first n that are counted.
func forgive(f func(int) error, n int) func(int) error {
	if f == nil || n == 0 {
		return f
	}
	return func(more int) error {
		free := min(n, more)
		n -= free
		if more == free {
			return nil
		}
		return f(more - free)
	}
}

// forgiveBytes is forgive for an account, whose reads may be concurrent.
func forgiveBytes(
	spend func(touched, fetched int64) error, n int64,
) func(touched, fetched int64) error {
	var left atomic.Int64
	left.Store(n)
	return func(touched, fetched int64) error {
		more := max(touched, fetched)
		before := left.Load()
		for !left.CompareAndSwap(before, before-min(before, more)) {
			before = left.Load()
		}
		free := min(before, more)
		if free == more {
			return nil
		}
		return spend(max(touched-free, 0), max(fetched-free, 0))
	}
}

// nextOfOwn returns the next segment of the request's own stream that was not returned before.
func (s *setStream) nextOfOwn() (*Segment, error) {
	for {
		seg, err := s.own.Next()
		s.moveOwnPages()
		if err != nil {
			if errors.Is(err, io.EOF) && s.skip > 0 {
				// The order of a block's series never changes, therefore its content did.
				return nil, s.plan.block.wrap(
					fmt.Errorf("%d series fewer than at the first read", s.skip),
				)
			}
			return nil, err
		}
		n := int64(seg.Len())
		if n <= s.skip {
			s.skip -= n
			continue
		}
		seg = seg.after(int(s.skip))
		s.skip = 0
		s.returned += int64(seg.Len())
		return seg, nil
	}
}

func (s *setStream) moveOwnPages() {
	if s.opts.Account != nil {
		s.ownPages.MoveTo(s.opts.Account)
	}
}

// Stats implements SeriesStream. Reads for the set count in the stream that got their credit. Reads
// of a stream of the request's own count, too.
func (s *setStream) Stats() StreamStats {
	st := s.stats
	if s.own != nil {
		own := s.own.Stats()
		own.Matched = max(own.Matched-st.Matched, 0)
		own.Series = s.returned - st.Series
		st.Add(own)
	}
	return st
}

// Close implements SeriesStream. The set's construction continues until the plan is closed.
func (s *setStream) Close() {
	if s.own != nil {
		s.own.Close()
		s.moveOwnPages()
	}
}
