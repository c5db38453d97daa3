package block

import "larder/internal/tsdbfmt"

// Segment is some consecutive matching series of one block in the order of their final labels,
// decoded: finished protobuf label bytes and the references of the chunks that overlap the
// request's range. It is immutable once a stream has returned it, and garbage collected: windows
// refer to its bytes until they are sent.
type Segment struct {
	labels []byte
	// by series: where its labels end in labels; they begin where those of the series before it end
	labelEnd []uint32
	chunkEnd []uint32 // by series: where its chunks end in chunks; nil: they have none
	chunks   tsdbfmt.ChunkMetas
	// cut says which series and chunks there are of those that the fields above hold; nil: all of
	// them.
	cut []cutSeries
}

// cutSeries is a series of a Segment that is a part of another: its number there, and the range of
// its chunks.
type cutSeries struct{ series, lo, hi uint32 }

// Len returns the number of series.
func (s *Segment) Len() int {
	if s.cut != nil {
		return len(s.cut)
	}
	return len(s.labelEnd)
}

// Labels returns the final labels of series i: concatenated `labels` fields of a thanos.Series
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

// ChunkRange returns the range of Chunks that belongs to series i.
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

// after returns the series from number n on, of which there must be one.
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

// segmentSeriesBytes and segmentChunkBytes are what a segment takes for a series besides its
// labels, and for a chunk.
const segmentSeriesBytes, segmentChunkBytes = 8, 28

// Bytes returns the heap that the segment holds.
func (s *Segment) Bytes() int64 {
	return int64(
		cap(s.labels),
	) + segmentSeriesBytes/2*int64(
		cap(s.labelEnd)+cap(s.chunkEnd),
	) + segmentChunkBytes*int64(
		cap(s.chunks.Ref),
	)
}

// rawSeries is a list of decoded series whose labels are still (name, value) symbol slots, in the
// index's order.
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

// truncate leaves the first n series.
func (r *rawSeries) truncate(n int) {
	slots, chunks := uint32(0), 0
	if n > 0 {
		slots, chunks = r.slotEnd[n-1], int(r.chunkEnd[n-1])
	}
	r.refs, r.slots, r.slotEnd, r.chunkEnd = r.refs[:n], r.slots[:slots], r.slotEnd[:n], r.chunkEnd[:n]
	r.chunks = tsdbfmt.ChunkMetas{
		Ref:   r.chunks.Ref[:chunks],
		Min:   r.chunks.Min[:chunks],
		Max:   r.chunks.Max[:chunks],
		Bound: r.chunks.Bound[:chunks],
	}
}

// bytes returns the heap that the list holds.
func (r *rawSeries) bytes() int64 {
	return 4*int64(
		cap(r.slots)+cap(r.refs)+cap(r.slotEnd)+cap(r.chunkEnd),
	) + segmentChunkBytes*int64(
		cap(r.chunks.Ref),
	)
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

// endSeries closes the series of posting ref, whose slots and chunks have just been appended.
func (r *rawSeries) endSeries(ref uint32) {
	r.refs = append(r.refs, ref)
	r.slotEnd = append(r.slotEnd, uint32(len(r.slots)))
	r.chunkEnd = append(r.chunkEnd, uint32(r.chunks.Len()))
}

// appendSeries copies series i of src.
func (r *rawSeries) appendSeries(src *rawSeries, i int) {
	r.slots = append(r.slots, src.labels(i)...)
	lo, hi := src.chunkRange(i)
	r.chunks.AppendRange(&src.chunks, lo, hi)
	r.endSeries(src.refs[i])
}
