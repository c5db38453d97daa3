package block

import (
	"slices"

	"larder/internal/tsdbfmt"
)

// Segment has some consecutive series of one block that match, in the order of their final labels.
// It has finished protobuf label bytes, and references to the chunks that overlap the request's
// range. It is immutable once a stream has returned it. It is garbage collected, because windows
// refer to its bytes until they are sent.
type Segment struct {
	labels   []byte
	labelEnd []uint32 // by series: end of its labels in labels; they begin at the end before it
	chunkEnd []uint32 // by series: end of its chunks in chunks; nil: no series has chunks
	chunks   tsdbfmt.ChunkMetas
	// cut has the series and chunks of the fields above that the segment includes; nil: all of
	// them.
	cut []cutSeries
}

// cutSeries is a series of a cut Segment: its number in the arrays, and the range of its chunks.
type cutSeries struct{ series, lo, hi uint32 }

// Len returns the number of series.
func (s *Segment) Len() int {
	if s.cut != nil {
		return len(s.cut)
	}
	return len(s.labelEnd)
}

// Labels returns the final labels of series i, as concatenated `labels` fields of a thanos.Series
// message.
func (s *Segment) Labels(i int) []byte {
	if s.cut != nil {
		i = int(s.cut[i].series)
	}
	lo := uint32(0)
	if i > 0 {
		lo = s.labelEnd[i-1]
	}
	return s.labels[lo:s.labelEnd[i]:s.labelEnd[i]]
}

// ChunkRange returns the range in Chunks of series i.
func (s *Segment) ChunkRange(i int) (lo, hi int) {
	switch {
	case s.cut != nil:
		return int(s.cut[i].lo), int(s.cut[i].hi)
	case s.chunkEnd == nil:
		return 0, 0
	}
	if i > 0 {
		lo = int(s.chunkEnd[i-1])
	}
	return lo, int(s.chunkEnd[i])
}

// Chunks returns the chunks that ChunkRange refers to. The caller must not change them.
func (s *Segment) Chunks() *tsdbfmt.ChunkMetas { return &s.chunks }

// after returns the series from number n on. There must be at least one.
func (s *Segment) after(n int) *Segment {
	if n == 0 {
		return s
	}
	out := *s
	out.cut = make([]cutSeries, 0, s.Len()-n)
	for i := n; i < s.Len(); i++ {
		series := uint32(i)
		if s.cut != nil {
			series = s.cut[i].series
		}
		lo, hi := s.ChunkRange(i)
		out.cut = append(out.cut, cutSeries{series, uint32(lo), uint32(hi)})
	}
	return &out
}

// segmentSeriesBytes and segmentChunkBytes are the memory of a series in a segment besides its
// labels, and of a chunk.
const segmentSeriesBytes, segmentChunkBytes = 8, 28

// Bytes returns the memory of the segment.
func (s *Segment) Bytes() int64 {
	ends, chunks := int64(cap(s.labelEnd)+cap(s.chunkEnd)), int64(cap(s.chunks.Ref))
	return int64(cap(s.labels)) + segmentSeriesBytes/2*ends + segmentChunkBytes*chunks
}

// rawSeries has decoded series in index order. Their labels are pairs of symbol slots, a name and a
// value.
type rawSeries struct {
	refs     []uint32 // the posting of each
	slots    []uint32
	slotEnd  []uint32
	chunkEnd []uint32
	chunks   tsdbfmt.ChunkMetas
}

func (r *rawSeries) len() int { return len(r.slotEnd) }

func (r *rawSeries) reset() {
	r.refs, r.slots, r.slotEnd, r.chunkEnd = r.refs[:0], r.slots[:0], r.slotEnd[:0], r.chunkEnd[:0]
	r.chunks.Reset()
}

// truncate removes all but the first n series.
func (r *rawSeries) truncate(n int) {
	slots, chunks := uint32(0), 0
	if n > 0 {
		slots, chunks = r.slotEnd[n-1], int(r.chunkEnd[n-1])
	}
	r.refs, r.slots = r.refs[:n], r.slots[:slots]
	r.slotEnd, r.chunkEnd = r.slotEnd[:n], r.chunkEnd[:n]
	r.chunks = tsdbfmt.ChunkMetas{
		Ref:   r.chunks.Ref[:chunks],
		Min:   r.chunks.Min[:chunks],
		Max:   r.chunks.Max[:chunks],
		Bound: r.chunks.Bound[:chunks],
	}
}

// bytes returns the memory of the series.
func (r *rawSeries) bytes() int64 {
	words := int64(cap(r.slots) + cap(r.refs) + cap(r.slotEnd) + cap(r.chunkEnd))
	return 4*words + segmentChunkBytes*int64(cap(r.chunks.Ref))
}

func (r *rawSeries) labels(i int) []uint32 {
	lo := uint32(0)
	if i > 0 {
		lo = r.slotEnd[i-1]
	}
	return r.slots[lo:r.slotEnd[i]]
}

func (r *rawSeries) chunkRange(i int) (lo, hi int) {
	if i > 0 {
		lo = int(r.chunkEnd[i-1])
	}
	return lo, int(r.chunkEnd[i])
}

// endSeries ends the series of posting ref. Its slots and chunks were appended before.
func (r *rawSeries) endSeries(ref uint32) {
	r.refs = append(r.refs, ref)
	r.slotEnd = append(r.slotEnd, uint32(len(r.slots)))
	r.chunkEnd = append(r.chunkEnd, uint32(r.chunks.Len()))
}

// expect allocates the arrays for n series like the one that raw has, unless they need more than
// the given bytes. Arrays that double repeatedly would leave as many bytes of garbage.
func (r *rawSeries) expect(n int, most int64) {
	slots, chunks := n*len(r.slots), n*r.chunks.Len()
	if 4*int64(slots+3*n)+segmentChunkBytes*int64(chunks) > most {
		return
	}
	r.slots = slices.Grow(r.slots, slots)
	r.refs, r.slotEnd = slices.Grow(r.refs, n), slices.Grow(r.slotEnd, n)
	r.chunkEnd = slices.Grow(r.chunkEnd, n)
	c := &r.chunks
	c.Ref, c.Bound = slices.Grow(c.Ref, chunks), slices.Grow(c.Bound, chunks)
	c.Min, c.Max = slices.Grow(c.Min, chunks), slices.Grow(c.Max, chunks)
}

// appendSeries copies series i of src.
func (r *rawSeries) appendSeries(src *rawSeries, i int) {
	r.slots = append(r.slots, src.labels(i)...)
	lo, hi := src.chunkRange(i)
	r.chunks.AppendRange(&src.chunks, lo, hi)
	r.endSeries(src.refs[i])
}
