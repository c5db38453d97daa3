package block

import (
	"math"
	"sort"

	"github.com/prometheus/client_golang/prometheus"

	"larder/indexcache"
	"larder/internal/tsdbfmt"
)

// SeriesSets keeps the series sets of a process.
type SeriesSets = indexcache.SeriesSets[*seriesSet]

// NewSeriesSets returns a cache of series sets that uses maxBytes in all: see
// indexcache.NewSeriesSets.
func NewSeriesSets(maxBytes int64, reg prometheus.Registerer) *SeriesSets {
	return indexcache.NewSeriesSets[*seriesSet](maxBytes, reg)
}

// seriesSet has all segments of all series of a block that match some matchers, for every time
// range, in the order of their final labels. It is immutable, and refers to no header, page or
// request.
type seriesSet struct {
	segments []*setSegment
	// postings is the number of postings of the plan. lazy says that matchers were pending, so that
	// a request is charged for series that match instead of postings.
	postings int
	lazy     bool
	// postingsBytes is the size of the index pages with the posting lists, tailBytes of those that
	// were read after the last segment. Every request is charged for them, as if it had read them
	// itself.
	postingsBytes, tailBytes int64
	// copied is the largest size of the chunks that a request may have to copy of a segment,
	// because those in its range are not adjacent.
	copied int64
}

const (
	// setOverhead and setSegmentOverhead are the memory of a set and of each of its segments
	// besides Segment.Bytes.
	setOverhead        = 256
	setSegmentOverhead = 384
)

// setSegment is a segment of a seriesSet.
type setSegment struct {
	*Segment
	seriesBytes int64 // of index pages that were read for it

	// Bounds of its chunks' times: most requests get all or nothing of it, without a look at one.
	minFirst, maxFirst int64 // the earliest and latest begin of a chunk
	minLast, maxLast   int64 // the earliest and latest end of a chunk
	// ascending: the chunks of every series begin and end in ascending order, so that those in a
	// range are adjacent.
	ascending bool
}

func newSetSegment(seg *Segment, seriesBytes int64) *setSegment {
	s := &setSegment{
		Segment: seg, seriesBytes: seriesBytes,
		minFirst: math.MaxInt64, maxFirst: math.MinInt64,
		minLast: math.MaxInt64, maxLast: math.MinInt64,
		ascending: true,
	}
	lo := 0
	for _, end := range seg.chunkEnd {
		hi := int(end)
		for i := lo; i < hi; i++ {
			from, to := seg.chunks.Min[i], seg.chunks.Max[i]
			s.minFirst, s.maxFirst = min(s.minFirst, from), max(s.maxFirst, from)
			s.minLast, s.maxLast = min(s.minLast, to), max(s.maxLast, to)
			if i > lo && (from < seg.chunks.Min[i-1] || to < seg.chunks.Max[i-1]) {
				s.ascending = false
			}
		}
		lo = hi
	}
	return s
}

// bytes returns the memory of the segment.
func (s *setSegment) bytes() int64 { return s.Segment.Bytes() + setSegmentOverhead }

// part is the part of a segment that a request gets.
type part struct {
	seg     *Segment // nil: no series of it
	matched int      // series with a chunk in the request's time range
	chunks  int      // chunks in range of series in the request's shard
}

// part returns the part of the segment for a request: series in its shard that have a chunk in its
// time range, with these chunks. Chunks are chosen same as by tsdbfmt.AppendChunkMetas. The part
// shares label bytes, and chunks where those in range are adjacent.
func (s *setSegment) part(o *StreamOptions) part {
	minT, maxT := o.MinTime, o.MaxTime
	if s.minFirst > maxT || s.maxLast < minT {
		return part{}
	}
	whole := s.maxFirst <= maxT && s.minLast >= minT
	if whole && o.Keep == nil {
		p := part{seg: s.Segment, matched: s.Segment.Len(), chunks: s.chunks.Len()}
		if o.SkipChunks {
			p.seg = &Segment{labels: s.labels, labelEnd: s.labelEnd}
		}
		return p
	}
	out := &Segment{labels: s.labels, labelEnd: s.labelEnd, chunks: s.chunks}
	if o.SkipChunks {
		out.chunks = tsdbfmt.ChunkMetas{}
	}
	var p part
	copied := false
	labelsFrom, next := uint32(0), 0
	for i, labelEnd := range s.labelEnd {
		labels := s.labels[labelsFrom:labelEnd:labelEnd]
		labelsFrom = labelEnd
		lo := next
		next = int(s.chunkEnd[i])
		hi, holes := next, false
		if !whole {
			lo, hi, holes = s.overlap(lo, hi, minT, maxT)
		}
		if lo == hi {
			continue
		}
		p.matched++
		if o.Keep != nil && !o.Keep(labels) {
			continue
		}
		if out.cut == nil {
			out.cut = make([]cutSeries, 0, len(s.labelEnd)-i)
		}
		switch {
		case o.SkipChunks:
			lo, hi = 0, 0
		case holes && !copied:
			copied = true
			out.ownChunks()
			fallthrough
		case copied:
			from := out.chunks.Len()
			for k := lo; k < hi; k++ {
				if s.chunks.Max[k] >= minT {
					out.chunks.AppendRange(&s.chunks, k, k+1)
				}
			}
			lo, hi = from, out.chunks.Len()
		}
		p.chunks += hi - lo
		out.cut = append(out.cut, cutSeries{uint32(i), uint32(lo), uint32(hi)})
	}
	if len(out.cut) > 0 {
		p.seg = out
	}
	return p
}

// ownChunks replaces the chunks of a cut segment by a copy of those of its series so far.
func (s *Segment) ownChunks() {
	var own tsdbfmt.ChunkMetas
	for i := range s.cut {
		c := &s.cut[i]
		from := own.Len()
		own.AppendRange(&s.chunks, int(c.lo), int(c.hi))
		c.lo, c.hi = uint32(from), uint32(own.Len())
	}
	s.chunks = own
}

// searchedChunks is the number of chunks of a series from which searching is faster than walking.
const searchedChunks = 16

// overlap narrows the chunks [lo, hi) of a series to [from, to), from the first to the last that
// overlap [minT, maxT]. Chunks from the first that begins after maxT on do not count. holes says
// that some chunks of [from, to) end before minT.
func (s *setSegment) overlap(lo, hi int, minT, maxT int64) (from, to int, holes bool) {
	first, last := s.chunks.Min, s.chunks.Max
	if s.ascending {
		if hi-lo >= searchedChunks {
			// From the first that ends late enough to the first that begins too late.
			hi = lo + sort.Search(hi-lo, func(i int) bool { return first[lo+i] > maxT })
			lo += sort.Search(hi-lo, func(i int) bool { return last[lo+i] >= minT })
			return lo, hi, false
		}
		for lo < hi && last[lo] < minT {
			lo++
		}
		for hi > lo && first[hi-1] > maxT {
			hi--
		}
		return lo, hi, false
	}
	from, to = hi, hi
	kept := 0
	for k := lo; k < hi && first[k] <= maxT; k++ {
		if last[k] >= minT {
			if kept == 0 {
				from = k
			}
			to = k + 1
			kept++
		}
	}
	return from, to, kept > 0 && kept < to-from
}
