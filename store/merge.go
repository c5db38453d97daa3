package store

import (
	"context"
	"errors"
	"io"

	"larder/store/block"
	"larder/store/storepb"
)

// source is the series stream of one block, an input of the merge.
type source struct {
	stream block.SeriesStream
	chunks *block.ChunkReader

	seg    *block.Segment
	at     int
	labels []byte // final labels of the current series, nil at the end
}

// next advances to the next series, of the next segment if needed. At the end labels is nil.
func (s *source) next() error {
	s.at++
	for s.seg == nil || s.at >= s.seg.Len() {
		seg, err := s.stream.Next()
		if errors.Is(err, io.EOF) {
			s.seg, s.labels = nil, nil
			return nil
		}
		if err != nil {
			return receiveError(s, err)
		}
		s.seg, s.at = seg, 0
	}
	s.labels = s.seg.Labels(s.at)
	if s.labels == nil {
		s.labels = []byte{}
	}
	return nil
}

// merge is a loser tree over sources. It yields their series in the order of labels; equal labels
// come in the order of the sources.
//
// A loser tree needs one comparison per level and a heap two. Comparisons are expensive, because
// they walk labels. See Knuth, The Art of Computer Programming, volume 3, 5.4.1.
type merge struct {
	sources []*source
	loser   []int // by inner node: the source that lost there; loser[0] is the overall winner
}

// newMerge returns a merge over sources that are at their first series.
func newMerge(sources []*source) *merge {
	m := &merge{sources: sources, loser: make([]int, max(len(sources), 1))}
	if len(sources) > 0 {
		m.loser[0] = m.play(1)
	}
	return m
}

// play returns the winner of the subtree at node n and records the losers. Leaf i is node
// len(sources)+i.
func (m *merge) play(n int) int {
	if n >= len(m.sources) {
		return n - len(m.sources)
	}
	a, b := m.play(2*n), m.play(2*n+1)
	if m.less(b, a) {
		a, b = b, a
	}
	m.loser[n] = b
	return a
}

func (m *merge) less(a, b int) bool {
	x, y := m.sources[a].labels, m.sources[b].labels
	switch {
	case x == nil:
		return false
	case y == nil:
		return true
	}
	c := storepb.CompareLabels(x, y)
	return c < 0 || c == 0 && a < b
}

// first returns the source whose current series comes first, and its index. It returns false once
// all sources are at their end.
func (m *merge) first() (*source, int, bool) {
	if len(m.sources) == 0 {
		return nil, 0, false
	}
	i := m.loser[0]
	return m.sources[i], i, m.sources[i].labels != nil
}

// skip advances to the first series that sorts after the given labels.
func (m *merge) skip(ctx context.Context, after []byte) error {
	for n := 0; ; n++ {
		if n%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		src, _, ok := m.first()
		if !ok || storepb.CompareLabels(src.labels, after) > 0 {
			return nil
		}
		if err := m.advance(); err != nil {
			return err
		}
	}
}

// advance advances the first source to its next series.
func (m *merge) advance() error {
	w := m.loser[0]
	if err := m.sources[w].next(); err != nil {
		return err
	}
	for n := (w + len(m.sources)) / 2; n > 0; n /= 2 {
		if m.less(m.loser[n], w) {
			w, m.loser[n] = m.loser[n], w
		}
	}
	m.loser[0] = w
	return nil
}
