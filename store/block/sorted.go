package block

import (
	"fmt"
	"io"
	"slices"

	"larder/internal/tsdbfmt"
	"larder/store/storepb"
)

// sortedSegments collects the whole answer of a block and puts it in order.
type sortedSegments struct {
	leave    Leave
	grown    int64
	segs     []*Segment
	order    []sortedRef
	complete bool
}

type sortedRef struct{ seg, i uint32 }

func (c *sortedSegments) add(seg *Segment) error {
	n := seg.Bytes() + 8*int64(seg.Len())
	if err := c.leave.grow(n); err != nil {
		return fmt.Errorf("its series have label names that are also external or removed labels, so that they must be sorted in memory: %w", err)
	}
	c.grown += n
	for i := range seg.Len() {
		c.order = append(c.order, sortedRef{uint32(len(c.segs)), uint32(i)})
	}
	c.segs = append(c.segs, seg)
	return nil
}

func (c *sortedSegments) sort() {
	c.complete = true
	slices.SortStableFunc(c.order, func(a, b sortedRef) int {
		return storepb.CompareLabels(c.segs[a.seg].Labels(int(a.i)), c.segs[b.seg].Labels(int(b.i)))
	})
}

// giveBack lets go of the answer.
func (c *sortedSegments) giveBack() {
	c.leave.giveBack(c.grown)
	c.grown, c.segs, c.order = 0, nil, nil
}

// next returns the next segment. hold is asked for leave to hold it.
func (c *sortedSegments) next(hold func(n int64) error) (*Segment, error) {
	if len(c.order) == 0 {
		return nil, io.EOF
	}
	n, labels, chunks := 0, 0, 0
	for _, r := range c.order[:min(len(c.order), segmentSeries)] {
		more := len(c.segs[r.seg].Labels(int(r.i)))
		if n > 0 && labels+more > segmentLabelBytes {
			break
		}
		lo, hi := c.segs[r.seg].ChunkRange(int(r.i))
		labels += more
		chunks += hi - lo
		n++
	}
	if err := hold(int64(labels) + segmentSeriesBytes*int64(n) + segmentChunkBytes*int64(chunks)); err != nil {
		return nil, err
	}
	out := &Segment{
		labels: make([]byte, 0, labels), labelEnd: make([]uint32, 0, n), chunkEnd: make([]uint32, 0, n),
		chunks: tsdbfmt.ChunkMetas{Ref: make([]uint64, 0, chunks), Min: make([]int64, 0, chunks), Max: make([]int64, 0, chunks), Bound: make([]uint32, 0, chunks)},
	}
	for _, r := range c.order[:n] {
		src := c.segs[r.seg]
		out.labels = append(out.labels, src.Labels(int(r.i))...)
		out.labelEnd = append(out.labelEnd, uint32(len(out.labels)))
		if src.chunks.Len() > 0 {
			lo, hi := src.ChunkRange(int(r.i))
			out.chunks.AppendRange(&src.chunks, lo, hi)
		}
		out.chunkEnd = append(out.chunkEnd, uint32(out.chunks.Len()))
	}
	c.order = c.order[n:]
	return out, nil
}
