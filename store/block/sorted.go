package block

import (
	"fmt"
	"io"
	"slices"

	"larder/internal/tsdbfmt"
	"larder/store/storepb"
)

// minSortBytes is the smallest size of a sorter.
const minSortBytes = 64 << 10

// seriesSorter sorts the series of a block by their final labels, in as many passes over them as
// its bytes require. A pass keeps the smallest series that follow those of the pass before, and
// returns them at its end.
//
// A sorter fills three quarters of its bytes, then tries to reserve more. If it cannot, it drops
// the largest series, including those of the current segment, until the rest fills a third of that.
// The rest is copied into the last quarter.
//
// INVARIANT: series with equal labels belong to the same pass.
type seriesSorter struct {
	reserver Reserver
	onePass  bool
	own      int64 // bytes of the request's estimate that it may use
	reserved int64 // bytes beyond them, from reserver

	segs  []*Segment
	order []sortedRef
	held  int64 // bytes of segs and order

	passes  int
	sorting bool   // a pass is running
	after   []byte // the last labels of the pass before; nil: this is the first pass
	// cut has the largest labels that this pass keeps; nil: it has dropped nothing. An empty label
	// set is not nil.
	cut      []byte
	complete bool // no pass follows
}

// sortedRef is a series of a seriesSorter: its segment and its number there.
type sortedRef struct{ seg, i uint32 }

// sortedRefBytes is the memory of a sortedRef, twice, because order grows by copying.
const sortedRefBytes = 16

func newSeriesSorter(bytes int64, reserver Reserver, onePass bool) *seriesSorter {
	return &seriesSorter{own: bytes, reserver: reserver, onePass: onePass}
}

func (c *seriesSorter) full() int64 { return (c.own + c.reserved) / 4 * 3 }

// limit lowers the sorter's own bytes. It reserves what the sorter holds beyond them.
func (c *seriesSorter) limit(bytes int64) error {
	if bytes >= c.own {
		return nil
	}
	c.own = bytes
	_, err := c.fit(0)
	return err
}

// add adds the series of a segment that belong to the pass.
func (c *seriesSorter) add(seg *Segment) error {
	c.sorting = true
	kept := c.choose(seg)
	if len(kept) == 0 {
		return nil
	}
	n := sortedBytes(seg, kept)
	fits, err := c.fit(n)
	switch {
	case err != nil:
		return err
	case fits:
		c.keep(seg, kept, n)
		return nil
	}
	return c.drop(seg, kept)
}

// choose returns the series of a segment that belong to the pass.
func (c *seriesSorter) choose(seg *Segment) (kept []uint32) {
	for i := range seg.Len() {
		if c.inPass(seg.Labels(i)) {
			kept = append(kept, uint32(i))
		}
	}
	return kept
}

// keep adds series of a segment. They need n bytes, which fit.
func (c *seriesSorter) keep(seg *Segment, kept []uint32, n int64) {
	if len(kept) < seg.Len() {
		from := seg
		seg = copySeries(func(k int) (*Segment, int) { return from, int(kept[k]) }, len(kept))
	}
	for i := range seg.Len() {
		c.order = append(c.order, sortedRef{uint32(len(c.segs)), uint32(i)})
	}
	c.segs = append(c.segs, seg)
	c.held += n
}

// inPass reports whether a series with these labels belongs to the pass.
func (c *seriesSorter) inPass(labels []byte) bool {
	return (c.after == nil || storepb.CompareLabels(labels, c.after) > 0) &&
		(c.cut == nil || storepb.CompareLabels(labels, c.cut) <= 0)
}

// sortedBytes returns the memory of some series of a segment in a sorter: the whole segment, or a
// copy.
func sortedBytes(seg *Segment, series []uint32) int64 {
	n := sortedRefBytes * int64(len(series))
	if len(series) == seg.Len() {
		return n + seg.Bytes()
	}
	for _, i := range series {
		n += seriesBytes(seg, int(i))
	}
	return n
}

// seriesBytes returns the memory of a series in a segment without spare capacity.
func seriesBytes(seg *Segment, i int) int64 {
	lo, hi := seg.ChunkRange(i)
	return int64(len(seg.Labels(i))) + segmentSeriesBytes + segmentChunkBytes*int64(hi-lo)
}

// fit reports whether n more bytes fit. In a sorter of one pass they fit, or the error says why
// not.
func (c *seriesSorter) fit(n int64) (bool, error) {
	lacks := c.held + n - c.full()
	if lacks <= 0 {
		return true, nil
	}
	more := lacks/3*4 + 4
	if c.onePass {
		return true, c.reserve(more)
	}
	step := max(more, c.own)
	if !c.reserver.TryReserve(step) {
		return false, nil
	}
	c.reserved += step
	return true, nil
}

// reserve reserves n more bytes that the pass cannot do without.
func (c *seriesSorter) reserve(n int64) error {
	if err := c.reserver.Reserve(n); err != nil {
		return fmt.Errorf(
			"%d more bytes for its series, which must be sorted in memory: %w", n, err,
		)
	}
	c.reserved += n
	return nil
}

// drop adds series of seg, then keeps the smallest of all series that fill a third of what may be
// filled, and at least those of one label set.
func (c *seriesSorter) drop(seg *Segment, kept []uint32) error {
	for _, i := range kept {
		c.order = append(c.order, sortedRef{uint32(len(c.segs)), i})
	}
	c.segs = append(c.segs, seg)
	c.sort()
	limit, n, bytes := c.full()/3, 0, int64(0)
	for n < len(c.order) {
		same, more := n, int64(0)
		first := c.labels(n)
		for ; same < len(c.order) && string(c.labels(same)) == string(first); same++ {
			more += seriesBytes(c.segs[c.order[same].seg], int(c.order[same].i)) + sortedRefBytes
		}
		if n > 0 && bytes+more > limit {
			break
		}
		n, bytes = same, bytes+more
	}
	// The last quarter is too small only for many series with the same labels.
	if lacks := c.held + bytes - c.own - c.reserved; lacks > 0 {
		if err := c.reserve(lacks); err != nil {
			return err
		}
	}
	if n < len(c.order) {
		c.cut = append([]byte{}, c.labels(n-1)...)
	}
	c.copyFirst(n)
	return nil
}

// copyFirst replaces what the sorter holds by copies of the first n series of order.
func (c *seriesSorter) copyFirst(n int) {
	out := copySeries(
		func(k int) (*Segment, int) { return c.segs[c.order[k].seg], int(c.order[k].i) }, n,
	)
	c.segs, c.order, c.held = []*Segment{out}, make([]sortedRef, n), 0
	for i := range c.order {
		c.order[i] = sortedRef{0, uint32(i)}
		c.held += seriesBytes(out, i) + sortedRefBytes
	}
}

// labels returns the labels of series number k of order.
func (c *seriesSorter) labels(k int) []byte {
	return c.segs[c.order[k].seg].Labels(int(c.order[k].i))
}

func (c *seriesSorter) sort() {
	slices.SortStableFunc(c.order, func(a, b sortedRef) int {
		return storepb.CompareLabels(c.segs[a.seg].Labels(int(a.i)), c.segs[b.seg].Labels(int(b.i)))
	})
}

// endPass ends a pass. From then on next returns the series that it has kept.
func (c *seriesSorter) endPass() {
	c.sort()
	c.passes++
	c.sorting = false
	c.complete = c.cut == nil
	c.after, c.cut = c.cut, nil
}

// release drops all series and releases their bytes.
func (c *seriesSorter) release() {
	c.reserver.Release(c.reserved)
	c.reserved, c.held, c.segs, c.order = 0, 0, nil, nil
}

// next returns the next segment of the pass, io.EOF at its end. The segment has at most limit
// bytes, or one series that has more. next calls reserve with its bytes before it makes the
// segment.
func (c *seriesSorter) next(limit int64, reserve func(n int64) error) (*Segment, error) {
	if c.sorting || len(c.order) == 0 {
		c.segs, c.order, c.held = nil, nil, 0
		return nil, io.EOF
	}
	n, labels, bytes := 0, 0, int64(0)
	for k := range min(len(c.order), segmentSeries) {
		size := len(c.labels(k))
		more := seriesBytes(c.segs[c.order[k].seg], int(c.order[k].i))
		if n > 0 && (labels+size > segmentLabelBytes || bytes+more > limit) {
			break
		}
		labels, bytes = labels+size, bytes+more
		n++
	}
	if err := reserve(bytes); err != nil {
		return nil, err
	}
	out := copySeries(
		func(k int) (*Segment, int) { return c.segs[c.order[k].seg], int(c.order[k].i) }, n,
	)
	c.order = c.order[n:]
	return out, nil
}

// copySeries returns a segment with copies of n series. Series number k is series i of seg, as
// at(k) returns them.
func copySeries(at func(k int) (seg *Segment, i int), n int) *Segment {
	labels, chunks := 0, 0
	for k := range n {
		seg, i := at(k)
		lo, hi := seg.ChunkRange(i)
		labels += len(seg.Labels(i))
		chunks += hi - lo
	}
	out := &Segment{
		labels:   make([]byte, 0, labels),
		labelEnd: make([]uint32, 0, n),
		chunkEnd: make([]uint32, 0, n),
		chunks: tsdbfmt.ChunkMetas{
			Ref:   make([]uint64, 0, chunks),
			Min:   make([]int64, 0, chunks),
			Max:   make([]int64, 0, chunks),
			Bound: make([]uint32, 0, chunks),
		},
	}
	for k := range n {
		seg, i := at(k)
		out.labels = append(out.labels, seg.Labels(i)...)
		out.labelEnd = append(out.labelEnd, uint32(len(out.labels)))
		if seg.chunks.Len() > 0 {
			lo, hi := seg.ChunkRange(i)
			out.chunks.AppendRange(&seg.chunks, lo, hi)
		}
		out.chunkEnd = append(out.chunkEnd, uint32(out.chunks.Len()))
	}
	return out
}
