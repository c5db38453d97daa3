package block

import (
	"bytes"
	"slices"

	"larder/internal/tsdbfmt"
)

// Streaming depends on the shape of a block: label names of a series ascend, no value is empty,
// series ascend. No checksum covers that. A regular stream checks it on symbol references as it
// decodes, which needs no look-up. The header tells whether references compare like their symbols.
// A stream of an irregular block normalises labels instead.

// shapeOf returns what is irregular about a series with these symbol references; "" if nothing is.
// prev has the references of the series before it. first says that there is none.
func shapeOf(prev, refs []uint32, first, ordered bool) string {
	same := 0
	for same < len(prev) && same < len(refs) && prev[same] == refs[same] {
		same++
	}
	if ordered && !first && (same == len(refs) || same < len(prev) && refs[same] < prev[same]) {
		return seriesDisordered
	}
	// Names before the difference were checked with the series before.
	for i := max(same&^1, 2); i < len(refs); i += 2 {
		if refs[i] <= refs[i-2] {
			return labelsDisordered
		}
	}
	return ""
}

// checkValues returns an error if a series from number held on has an empty value.
func (s *Stream) checkValues(held int) error {
	if s.syms.empty == 0 {
		return nil
	}
	for i := held; i < s.raw.len(); i++ {
		slots := s.raw.labels(i)
		for j := 1; j < len(slots); j += 2 {
			if slots[j] == s.syms.empty-1 {
				return s.irregular(s.entryOffset(s.raw.refs[i]), emptyValue)
			}
		}
	}
	return nil
}

// entryOffset returns the offset of the entry of a posting.
func (s *Stream) entryOffset(ref uint32) int64 {
	return tsdbfmt.SeriesOffset(s.plan.header.IndexVersion(), ref)
}

// normalise changes the labels of every series of raw same as Thanos does: they are sorted by name,
// the last of equal names stays, and labels with an empty value are dropped after that.
func (s *Stream) normalise() {
	raw, syms := &s.raw, &s.syms
	from, to := uint32(0), uint32(0)
	for i, end := range raw.slotEnd {
		s.pairs = s.pairs[:0]
		for ; from < end; from += 2 {
			s.pairs = append(s.pairs, labelSlots{raw.slots[from], raw.slots[from+1]})
		}
		slices.SortStableFunc(s.pairs, func(a, b labelSlots) int {
			if a.name == b.name {
				return 0
			}
			return bytes.Compare(syms.at(a.name), syms.at(b.name))
		})
		for k, p := range s.pairs {
			if k+1 < len(s.pairs) && bytes.Equal(syms.at(s.pairs[k+1].name), syms.at(p.name)) {
				continue
			}
			if syms.size[p.value] > 0 {
				raw.slots[to], raw.slots[to+1] = p.name, p.value
				to += 2
			}
		}
		raw.slotEnd[i] = to
	}
	raw.slots = raw.slots[:to]
}

// labelSlots are the slots of a label.
type labelSlots struct{ name, value uint32 }
