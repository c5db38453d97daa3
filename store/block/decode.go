package block

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/pagecache"
	"larder/internal/telemetry"
	"larder/internal/tsdbfmt"
)

// startSegment empties the buffers and puts the series that were held back first.
func (s *Stream) startSegment() {
	s.carry.reset()
	for _, i := range s.order.stack {
		s.carry.appendSeries(&s.raw, int(i))
	}
	if s.syms.full() {
		for i, slot := range s.carry.slots {
			s.carry.slots[i] = s.syms.refs[slot]
		}
		s.syms.reset()
		for i, ref := range s.carry.slots {
			s.carry.slots[i] = s.syms.slot(ref)
		}
	}
	s.raw, s.carry = s.carry, s.raw
	s.prevRefs = s.prevRefs[:0]
	s.lastKept = false
}

// decode appends the next series of the current run to raw.
func (s *Stream) decode() error {
	if s.run == nil {
		if err := s.nextRun(); err != nil {
			return err
		}
	}
	version := s.plan.header.IndexVersion()
	from := s.raw.len()
	bytes := 0
	for s.run != nil && s.raw.len()-from < s.maxSeries && bytes < s.maxEntryBytes {
		r := s.run
		if r.at == len(r.refs) {
			s.run = nil
			break
		}
		off := tsdbfmt.SeriesOffset(version, r.refs[r.at])
		content, size, err := s.entry(r, off)
		if err != nil {
			return err
		}
		r.at++
		bytes += size
		if err := s.decodeEntry(off, content); err != nil {
			return s.wrap(fmt.Errorf("object %s: series entry at offset %d: %w", s.index.Name, off, err))
		}
		s.lastEnd = tsdbfmt.NextSeriesOffset(version, off+int64(size))
		if s.lastKept && (r.at == len(r.refs) || tsdbfmt.SeriesOffset(version, r.refs[r.at]) != s.lastEnd) {
			s.boundByNeighbour(r)
		}
	}
	if s.lastKept && s.run != nil {
		// The entry that would bound the last chunk belongs to the next segment.
		s.boundByNeighbour(s.run)
	}
	if s.run != nil && s.run.at == len(s.run.refs) {
		s.run = nil
	}
	s.stats.EntryBytes += int64(bytes)
	return nil
}

// decodeEntry appends one series to raw, unless none of its chunks is in range.
func (s *Stream) decodeEntry(off int64, content []byte) error {
	s.stats.Entries++
	refs, rest, err := tsdbfmt.AppendSeriesLabels(s.symRefs[:0], content)
	s.symRefs = refs
	if err != nil {
		return err
	}
	before := s.raw.chunks.Len()
	first, some, kept, err := tsdbfmt.AppendChunkMetas(&s.raw.chunks, rest, s.opts.MinTime, s.opts.MaxTime)
	if err != nil {
		s.raw.chunks.Reset()
		return err
	}
	if s.lastKept && some && off == s.lastEnd && before > 0 {
		s.raw.chunks.Bound[before-1] = tsdbfmt.ChunkBound(s.raw.chunks.Ref[before-1], first)
	}
	s.lastKept = kept
	if s.raw.chunks.Len() == before {
		s.lastKept = false
		return nil
	}
	// Neighbours share most of their labels, at the same positions: those need no look-up.
	prev := s.prevRefs
	var prevSlots []uint32
	if n := s.raw.len(); n > 0 && len(prev) > 0 {
		prevSlots = s.raw.labels(n - 1)
	}
	for i, ref := range refs {
		if i < len(prev) && i < len(prevSlots) && prev[i] == ref {
			s.raw.slots = append(s.raw.slots, prevSlots[i])
			continue
		}
		s.raw.slots = append(s.raw.slots, s.syms.slot(ref))
	}
	s.raw.endSeries()
	s.prevRefs, s.symRefs = refs, prev
	return nil
}

// boundByNeighbour bounds the last chunk kept by the first chunk of the entry that follows in the index, if its bytes are at hand.
func (s *Stream) boundByNeighbour(r *run) {
	s.lastKept = false
	if s.lastEnd >= s.seriesEnd {
		return
	}
	n := min(r.have(s.lastEnd), defaultEntryBytes, s.seriesEnd-s.lastEnd)
	if n <= 0 {
		return
	}
	b, ok := r.bytes(s.lastEnd, int(n), &s.scratch)
	if !ok {
		return
	}
	if next, ok := tsdbfmt.PeekFirstChunk(b); ok {
		last := s.raw.chunks.Len() - 1
		s.raw.chunks.Bound[last] = tsdbfmt.ChunkBound(s.raw.chunks.Ref[last], next)
	}
}

// entry returns the verified content of the series entry at off, and the size of the whole entry.
func (s *Stream) entry(r *run, off int64) (content []byte, size int, err error) {
	s.scratch = s.scratch[:0]
	content, size, err = s.tryEntry(r, off)
	if err == nil || s.ctx.Err() != nil {
		return content, size, err
	}
	if !corrupt(err) {
		return nil, 0, s.wrap(err)
	}
	// Bytes that do not verify may have been damaged on the way or in a cache: they get one more chance, straight from the bucket.
	end := min(off+max(int64(size), s.entrySize), s.seriesEnd)
	again, rerr := s.plan.pages.Refetch(s.ctx, s.index, pagecache.Span{Off: off, End: end}, s.opts.Account)
	if rerr == nil {
		content, size, err = s.tryEntry(runOf(again), off)
	}
	corruptions := s.plan.block.deps.Corruptions
	if rerr == nil && err == nil {
		corruptions.Mended(telemetry.CorruptSeries, 1)
	} else if rerr == nil {
		corruptions.Failed(telemetry.CorruptSeries)
	}
	if rerr != nil || err != nil {
		return nil, 0, s.wrap(fmt.Errorf("object %s: series entry at offset %d: %w", s.index.Name, off, errors.Join(err, rerr)))
	}
	return content, size, nil
}

func (s *Stream) tryEntry(r *run, off int64) (content []byte, size int, err error) {
	if off >= s.seriesEnd {
		return nil, 0, fmt.Errorf("%w: posting refers to offset %d of %s, its series end at %d", tsdbfmt.ErrCorrupt, off, s.index.Name, s.seriesEnd)
	}
	size, err = r.entrySize(off, s.seriesEnd, &s.scratch)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: length of the series entry", errors.Join(tsdbfmt.ErrCorrupt, err))
	}
	if off+int64(size) > s.seriesEnd {
		return nil, 0, fmt.Errorf("%w: series entry ends behind the series section", tsdbfmt.ErrCorrupt)
	}
	b, ok := r.bytes(off, size, &s.scratch)
	if !ok {
		s.stats.FollowUps++
		more, err := s.plan.pages.Fetch(s.ctx, s.index, []pagecache.Span{{Off: off, End: off + int64(size)}}, s.opts.Account)
		if err != nil {
			return nil, 0, err
		}
		if b, ok = runOf(more).bytes(off, size, &s.scratch); !ok {
			return nil, 0, fmt.Errorf("object %s: pages do not cover [%d, %d)", s.index.Name, off, off+int64(size))
		}
	}
	content, err = tsdbfmt.SeriesContent(b)
	return content, size, err
}

// filter removes the series from held on that a pending matcher does not match.
func (s *Stream) filter(held int) error {
	if len(s.pending) == 0 {
		s.stats.Matched += int64(s.raw.len() - held)
		return nil
	}
	// The carried series were filtered when they were decoded. The others move to the front of what follows them.
	in, out := &s.raw, &s.carry
	out.reset()
	for i := range in.len() {
		if i < held || s.matches(in.labels(i)) {
			out.appendSeries(in, i)
		}
	}
	s.raw, s.carry = s.carry, s.raw
	s.stats.Matched += int64(s.raw.len() - held)
	if s.opts.OnSeries != nil {
		return s.opts.OnSeries(s.raw.len() - held)
	}
	return nil
}

// pendingMatcher is a pending matcher and what it said of the value it saw last: series are sorted, so that neighbours mostly share theirs.
type pendingMatcher struct {
	m       *labels.Matcher
	value   string
	matches bool
}

// matches reports whether all pending matchers match the series with these slots.
func (s *Stream) matches(slots []uint32) bool {
	for i := range s.pending {
		p := &s.pending[i]
		var value []byte // a label that the series lacks is empty
		for j := 0; j < len(slots); j += 2 {
			if string(s.syms.at(slots[j])) == p.m.Name {
				value = s.syms.at(slots[j+1])
				break
			}
		}
		if string(value) != p.value {
			p.value = string(value)
			p.matches = p.m.Matches(p.value)
		}
		if !p.matches {
			return false
		}
	}
	return true
}
