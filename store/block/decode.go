package block

import (
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/pagecache"
	"larder/internal/telemetry"
	"larder/internal/tsdbfmt"
)

// startSegment empties the buffers, except for the series that were held back, which come first.
func (s *Stream) startSegment() {
	s.carry.reset()
	for _, i := range s.order.stack {
		s.carry.appendSeries(&s.raw, int(i))
	}
	if s.syms.full() {
		s.syms.renew(&s.carry, 0)
	}
	if s.carry.len() > 0 {
		s.raw, s.carry = s.carry, s.raw
	} else {
		s.raw.reset() // so that one of the two stays small
	}
	s.prevInRaw, s.lastKept = false, false
}

// decode appends the next series of the current run to raw.
func (s *Stream) decode() error {
	r := s.run
	if r == nil {
		return nil
	}
	version := s.plan.header.IndexVersion()
	from := s.raw.len()
	bytes := 0
	limit := min(s.batch, s.maxSeries)
	for r.at < len(r.refs) && s.raw.len()-from < limit && bytes < s.maxEntryBytes {
		ref := r.refs[r.at]
		off := tsdbfmt.SeriesOffset(version, ref)
		content, size, err := s.entry(r, off, r.entryEnd(version, r.at, s.seriesEnd))
		if err != nil {
			return err
		}
		if size > maxEntryGuess && bytes > 0 && bytes+size > s.maxEntryBytes {
			break
		}
		r.at++
		bytes += size
		if err := s.decodeEntry(ref, off, content); err != nil {
			var irregular *IrregularError
			if errors.As(err, &irregular) {
				return s.irregular(off, irregular.What)
			}
			return s.entryError(off, err)
		}
		if s.raw.len() == 1 && !s.narrow.on {
			s.raw.expect(min(limit, len(r.refs), s.maxEntryBytes/size+1), s.estimate/2)
		}
		s.lastEnd = tsdbfmt.NextSeriesOffset(version, off+int64(size))
		if s.lastKept &&
			(r.at == len(r.refs) || tsdbfmt.SeriesOffset(version, r.refs[r.at]) != s.lastEnd) {
			s.boundByNeighbour(r)
		}
	}
	if s.lastKept {
		// The entry that would bound the last chunk belongs to the next segment.
		s.boundByNeighbour(r)
	}
	s.stats.EntryBytes += int64(bytes)
	return nil
}

// resolve looks up the symbols of raw, of which the first held series were resolved before. If the
// symbols do not fit, the last series are removed from raw and decoded again later, and fewer
// series are decoded at a time from then on.
func (s *Stream) resolve(held int) error {
	if err := s.reserve(s.used()); err != nil {
		return err
	}
	fits, err := s.syms.resolve(s.ctx, s.plan.header)
	if err == nil && !fits {
		n, bytes := s.syms.fitting(&s.raw, held+1)
		if err := s.postpone(n); err != nil {
			return err
		}
		s.batch = max(n-held, 1)
		if bytes > maxSeriesLabels {
			err = &longLabelsError{size: bytes}
			return s.entryError(
				tsdbfmt.SeriesOffset(s.plan.header.IndexVersion(), s.raw.refs[n-1]), err,
			)
		}
		if err := s.reserve(s.used() + bytes); err != nil {
			return err
		}
		s.syms.renew(&s.raw, bytes)
		_, err = s.syms.resolve(s.ctx, s.plan.header)
	} else {
		s.batch = min(2*s.batch, segmentSeries)
	}
	if err != nil {
		return s.wrap(fmt.Errorf("symbols: %w", err))
	}
	return nil
}

// decodeEntry appends the series of posting ref to raw, unless none of its chunks is in range.
func (s *Stream) decodeEntry(ref uint32, off int64, content []byte) error {
	s.stats.Entries++
	refs, rest, err := tsdbfmt.AppendSeriesLabels(s.symRefs[:0], content)
	s.symRefs = refs
	if err != nil {
		return err
	}
	metas := &s.raw.chunks
	if s.opts.SkipChunks {
		metas = nil
	}
	before := s.raw.chunks.Len()
	first, some, kept, err := tsdbfmt.AppendChunkMetas(
		metas, rest, s.opts.MinTime, s.opts.MaxTime,
	)
	if err != nil {
		s.raw.chunks.Reset()
		return err
	}
	inRange := kept
	if metas != nil {
		inRange = metas.Len() > before
	}
	if s.lastKept && some && off == s.lastEnd && before > 0 {
		s.raw.chunks.Bound[before-1] = tsdbfmt.ChunkBound(s.raw.chunks.Ref[before-1], first)
	}
	s.lastKept = kept && metas != nil
	if !inRange {
		s.lastKept = false
		if some {
			s.stats.OutOfRange++
		}
		return nil
	}
	prev := s.prevRefs
	if !s.plan.irregular {
		ordered := !s.plan.unordered && !s.plan.sorted
		if what := shapeOf(prev, refs, !s.decoded, ordered); what != "" {
			return &IrregularError{What: what}
		}
	}
	if s.narrow.on {
		err := s.appendNarrowed(ref, refs)
		s.prevRefs, s.symRefs = refs, prev
		s.decoded = true
		return err
	}
	// Neighbours share most of their labels, at the same positions. These need no look-up.
	var prevSlots []uint32
	if s.prevInRaw {
		prevSlots = s.raw.labels(s.raw.len() - 1)
	}
	for i, sym := range refs {
		if i < len(prev) && i < len(prevSlots) && prev[i] == sym {
			s.raw.slots = append(s.raw.slots, prevSlots[i])
			continue
		}
		s.raw.slots = append(s.raw.slots, s.syms.slot(sym))
	}
	s.raw.endSeries(ref)
	s.prevRefs, s.symRefs = refs, prev
	s.prevInRaw, s.decoded = true, true
	return nil
}

// boundByNeighbour bounds the last kept chunk by the first chunk of the next entry in the index, if
// the run has its bytes.
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
// The entry must not end after end.
func (s *Stream) entry(r *run, off, end int64) (content []byte, size int, err error) {
	s.scratch = s.scratch[:0]
	content, size, err = s.tryEntry(r, off, end)
	if err == nil || s.ctx.Err() != nil {
		return content, size, err
	}
	if !corrupt(err) {
		return nil, 0, s.wrap(err)
	}
	// The bytes may have been damaged on the way, or in a cache: they are read once more, from the
	// bucket.
	span := pagecache.Span{Off: off, End: min(off+max(int64(size), s.entrySize), end)}
	again, rerr := s.plan.pages.Refetch(s.ctx, s.index, span, s.opts.Account)
	if rerr == nil {
		content, size, err = s.tryEntry(runOf(again), off, end)
	}
	corruptions := s.plan.block.deps.Corruptions
	if rerr == nil && err == nil {
		corruptions.Mended(telemetry.CorruptSeries, 1)
	} else if rerr == nil {
		corruptions.Failed(telemetry.CorruptSeries)
	}
	if rerr != nil || err != nil {
		return nil, 0, s.entryError(off, errors.Join(err, rerr))
	}
	return content, size, nil
}

// entryError names the entry in err.
func (s *Stream) entryError(off int64, err error) error {
	return s.wrap(fmt.Errorf("object %s: series entry at offset %d: %w", s.index.Name, off, err))
}

func (s *Stream) tryEntry(r *run, off, end int64) (content []byte, size int, err error) {
	if off >= s.seriesEnd {
		return nil, 0, fmt.Errorf(
			"%w: posting refers to offset %d of %s, its series end at %d", tsdbfmt.ErrCorrupt, off,
			s.index.Name, s.seriesEnd,
		)
	}
	size, err = r.entrySize(off, s.seriesEnd, &s.scratch)
	if err != nil {
		return nil, 0, fmt.Errorf(
			"%w: length of the series entry", errors.Join(tsdbfmt.ErrCorrupt, err),
		)
	}
	if off+int64(size) > s.seriesEnd {
		return nil, 0, fmt.Errorf(
			"%w: series entry ends behind the series section", tsdbfmt.ErrCorrupt,
		)
	}
	if off+int64(size) > end {
		return nil, 0, fmt.Errorf(
			"%w: series entry of %d bytes, the next one begins at %d", tsdbfmt.ErrCorrupt, size,
			end,
		)
	}
	if size > maxEntryGuess {
		if err := s.reserve(s.used() + longEntry*int64(size)); err != nil {
			return nil, 0, err
		}
	}
	b, ok := r.bytes(off, size, &s.scratch)
	if !ok {
		s.stats.FollowUps++
		more, err := s.plan.pages.Fetch(
			s.ctx, s.index, []pagecache.Span{{Off: off, End: off + int64(size)}}, s.opts.Account,
		)
		if err != nil {
			return nil, 0, err
		}
		if b, ok = runOf(more).bytes(off, size, &s.scratch); !ok {
			return nil, 0, fmt.Errorf(
				"object %s: pages do not cover [%d, %d)", s.index.Name, off, off+int64(size),
			)
		}
	}
	content, err = tsdbfmt.SeriesContent(b)
	return content, size, err
}

// postpone removes the series from number n on from raw. They are decoded again later.
func (s *Stream) postpone(n int) error {
	if n == s.raw.len() {
		return nil
	}
	at, ok := slices.BinarySearch(s.run.refs, s.raw.refs[n])
	if !ok {
		return s.wrap(fmt.Errorf("posting %d is not one of its run", s.raw.refs[n]))
	}
	version := s.plan.header.IndexVersion()
	for ; s.run.at > at; s.run.at-- {
		s.scratch = s.scratch[:0]
		off := tsdbfmt.SeriesOffset(version, s.run.refs[s.run.at-1])
		if size, err := s.run.entrySize(off, s.seriesEnd, &s.scratch); err == nil {
			s.stats.EntryBytes -= int64(size)
		}
		s.stats.Entries--
	}
	s.raw.truncate(n)
	s.prevRefs = s.prevRefs[:0]
	if s.narrow.on {
		return nil // raw does not have all labels
	}
	for _, slot := range s.raw.labels(n - 1) {
		s.prevRefs = append(s.prevRefs, s.syms.refs[slot])
	}
	return nil
}

// filter removes the series from number held on that some pending matcher does not match.
func (s *Stream) filter(held int) error {
	if len(s.pending) == 0 {
		s.noteMatched(s.raw.len() - held)
		return nil
	}
	// The first held series were filtered before.
	in, out := &s.raw, &s.carry
	out.reset()
	for i := range in.len() {
		if i < held || s.matches(in.labels(i)) {
			out.appendSeries(in, i)
		}
	}
	s.raw, s.carry = s.carry, s.raw
	s.noteMatched(s.raw.len() - held)
	if s.opts.OnSeries != nil && !s.counted() {
		return s.opts.OnSeries(s.raw.len() - held)
	}
	return nil
}

func (s *Stream) noteMatched(n int) {
	if !s.counted() {
		s.stats.Matched += int64(n)
	}
}

// pendingMatcher is a pending matcher with its last value and result. Series are sorted, therefore
// neighbours mostly have the same value.
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
