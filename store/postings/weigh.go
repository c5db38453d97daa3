package postings

import (
	"cmp"
	"math"

	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/bucket/cost"
	"larder/internal/pagecache"
)

// scales price reads of one index, in nanoseconds, by a cost.Model. Numbers of series are expected
// values, therefore they are fractions.
type scales struct {
	perRequest float64
	transfer   float64 // of a byte by one read
	total      float64 // of a byte by reads that run side by side
	inFlight   float64 // bytes from which on a read is split
	page       float64
	entry      float64 // bytes of a series entry
}

func newScales(m cost.Model, req *request) scales {
	const many = 1 << 30
	return scales{
		perRequest: float64(m.Reads(0, 1, 0, 0)),
		transfer:   float64(m.Reads(0, 0, many, 0)) / many,
		total:      float64(m.Reads(0, 0, 0, many)) / many,
		inFlight:   float64(max(m.InFlight(), 1)),
		page:       float64(cmp.Or(req.pageBytes, defaultPageBytes)),
		entry:      float64(req.entryBytes()),
	}
}

// reads prices reads that are sent together and get bytes in so many pieces, which lie evenly in an
// extent: each piece by a read of its own, or the whole extent by as many reads as are best.
func (s *scales) reads(pieces, bytes, extent float64) float64 {
	pieces = max(pieces, 1)
	parts := pieces
	if s.perRequest > 0 {
		parts = min(pieces, math.Sqrt(s.transfer*extent/s.perRequest))
	}
	parts = max(parts, extent/s.inFlight, 1) // one piece is split too
	return min(
		pieces*s.perRequest+s.total*bytes+s.transfer*bytes/pieces,
		parts*s.perRequest+s.total*extent+s.transfer*extent/parts,
	)
}

// candidates are the series that are expected to match the groups that are read. They lie evenly
// among so many neighbouring series.
type candidates struct {
	n, among float64
}

// entries prices reading the entries of candidates. Decoding an entry and matching it counts like
// the transfer of its bytes.
func (s *scales) entries(c candidates) float64 {
	extent := max(c.among*s.entry, 1)
	pages := math.Ceil(extent / s.page)
	needed := pages
	if c.n < c.among {
		needed = pages * -math.Expm1(-c.n/pages)
	}
	// Needed pages that adjoin are one read.
	runs := min(needed, max(needed*(1-needed/pages), 1))
	return s.reads(runs, needed*s.page, min(pages*s.page, extent+s.page)) + s.transfer*c.n*s.entry
}

// lists prices reading the lists of a group beside the lists of others. A read of its own is saved
// if the gap to its nearest neighbour is cheaper to read.
func (s *scales) lists(l *listing, others []pagecache.Span) float64 {
	at := l.extent()
	price := s.reads(float64(l.pieces(int64(s.page))), float64(l.bytes), float64(at.End-at.Off))
	saved := 0.0
	for _, o := range others {
		gap := float64(max(o.Off-at.End, at.Off-o.End, 0))
		saved = max(saved, s.perRequest-s.total*gap)
	}
	return price - saved
}

// after returns the candidates that remain once group g is read too. It takes labels to be
// independent of one another: a group selects the same part of the candidates as of all series.
func (c candidates) after(g *group, series int64) candidates {
	part := min(float64(g.refs)/float64(series), 1)
	if !g.adds {
		part = 1 - part
	}
	if g.adds && g.name == labels.MetricName {
		// Series are sorted by their labels, of which the name is the first with few exceptions.
		c.among = min(c.among, float64(g.refs))
	}
	c.n = min(c.n*part, c.among)
	return c
}

// extent returns the byte range that the lists lie in. For marked lists it is as long as they are
// together.
func (l *listing) extent() pagecache.Span {
	if len(l.lists) == 0 {
		return pagecache.Span{End: l.bytes}
	}
	at := pagecache.Span{Off: l.lists[0].Off}
	for _, list := range l.lists {
		at.End = max(at.End, list.End)
	}
	return at
}

// pieces returns the number of stretches of lists that lie more than a page apart.
func (l *listing) pieces(page int64) int {
	n, end := min(l.count, 1), int64(0)
	for i, list := range l.lists {
		if i > 0 && list.Off > end+page {
			n++
		}
		end = max(end, list.End)
	}
	return n
}
