package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/pagecache"
	"larder/internal/tsdbfmt"
	"larder/store/storepb"
)

const (
	// firstRunBytes is how much index the first read of a stream asks for, so that the first series are out soon; each later read
	// doubles it up to StreamOptions.RunBytes.
	firstRunBytes = 64 << 10
	// segmentSeries and segmentEntryBytes bound a segment: what has been decoded stays until its window is sent.
	segmentSeries     = 2048
	segmentEntryBytes = 256 << 10
	// defaultEntryBytes is the size that a series entry is expected to have at most, where meta.json does not say. A longer one costs a
	// follow-up read of its tail.
	defaultEntryBytes = 512
	// maxEntryGuess caps what meta.json may make us expect: one huge entry must not make all others read huge.
	maxEntryGuess = 4 << 10
)

// StreamOptions say what a stream makes of a plan's series.
type StreamOptions struct {
	// MinTime and MaxTime bound the request in milliseconds, both included: a series without a chunk in it is left out.
	MinTime, MaxTime int64
	// External are the external labels to add, those to be removed already taken away, sorted.
	External labels.Labels
	// Dropped are the label names that the final labels do not take from the block: removed replica labels. (Names of External are
	// overridden in any case.)
	Dropped []string
	// Keep decides by the final labels whether a series is in the request's shard; nil keeps all.
	Keep func(labels []byte) bool
	// SkipChunks leaves the chunk references out of the segments.
	SkipChunks bool
	// Unordered spares the stream restoring the order of the final labels, for callers that only look at label names and values.
	Unordered bool
	// RunBytes is how many bytes of index are read at a time, once the stream has got going; default 1 MiB. The stream holds up to two
	// such runs.
	RunBytes int64
	// Account counts what is read and may refuse it.
	Account *pagecache.Account
	// OnSeries is called with the number of series matched by pending matchers, per segment, where the plan has such; an error ends the
	// stream. The others have been counted from their postings.
	OnSeries func(n int) error
	// OnChunks is called with the number of chunks of a segment, of the series that Keep keeps; an error ends the stream. Not called with SkipChunks.
	OnChunks func(n int) error
	// Grow asks for leave to hold n more bytes, where the answer of this block has to be collected and sorted before its first series is
	// known. nil allows all.
	Grow func(n int64) error
}

// StreamStats counts what a stream has decoded.
type StreamStats struct {
	Entries      int64 // series entries decoded
	EntryBytes   int64 // and their bytes
	Matched      int64 // series that overlap the time range and match
	Series       int64 // series returned: those of them that Keep keeps
	FollowUps    int64 // entries that turned out longer than read at first
	SortedSeries int64 // series that had to be collected and sorted
}

// Add adds o to s.
func (s *StreamStats) Add(o StreamStats) {
	s.Entries += o.Entries
	s.EntryBytes += o.EntryBytes
	s.Matched += o.Matched
	s.Series += o.Series
	s.FollowUps += o.FollowUps
	s.SortedSeries += o.SortedSeries
}

// Stream is the series stream of one block: its segments, in the order of the final labels. It is used by one goroutine.
type Stream struct {
	plan  *Plan
	opts  StreamOptions
	names nameRules
	index pagecache.Object

	ctx    context.Context
	cancel context.CancelFunc

	maxSeries, maxEntryBytes int // of a segment: segmentSeries and segmentEntryBytes but in tests

	refs      []uint32 // not yet in a run
	runBytes  int64
	run, next *run
	entrySize int64
	indexPage int64
	seriesEnd int64 // where the series section of the index ends

	raw, carry rawSeries
	order      reorder
	syms       symbols
	symRefs    []uint32
	prevRefs   []uint32
	scratch    []byte
	lastEnd    int64 // where the entry after the one decoded last begins
	lastKept   bool  // the last chunk of that entry was kept, with no bound yet
	matchNames []pendingName
	lay        layout

	sorted *sortedSegments
	stats  StreamStats
	done   bool
}

// Stream starts the series stream of a plan. Close must be called.
func (p *Plan) Stream(ctx context.Context, opts StreamOptions) *Stream {
	if opts.RunBytes <= 0 {
		opts.RunBytes = 1 << 20
	}
	s := &Stream{plan: p, opts: opts, refs: p.refs, runBytes: min(firstRunBytes, opts.RunBytes), index: p.index}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.maxSeries, s.maxEntryBytes = segmentSeries, segmentEntryBytes
	s.names = newNameRules(p.header.LabelNames(), opts.External, opts.Dropped)
	if !opts.Unordered {
		s.order.largest = s.names.largest()
	}
	s.entrySize, s.indexPage = p.block.entryGuess(), p.block.indexPage()
	s.syms.most = opts.RunBytes
	s.seriesEnd = seriesSectionEnd(p.header.TOC(), p.index.Size)
	for _, m := range p.pending {
		s.matchNames = append(s.matchNames, pendingName{name: m.Name, m: m})
	}
	s.lay = layout{rules: &s.names}
	if s.names.clash && !opts.Unordered {
		s.sorted = &sortedSegments{grow: opts.Grow}
	}
	return s
}

// Stats returns what has been decoded so far.
func (s *Stream) Stats() StreamStats { return s.stats }

// Close ends the stream's reads and waits for them: they end at once, as their context is cancelled. No other method may run.
func (s *Stream) Close() {
	s.cancel()
	if s.next != nil {
		<-s.next.done
		s.next = nil
	}
}

// Next returns the next segment, never empty, and io.EOF after the last.
func (s *Stream) Next() (*Segment, error) {
	if s.sorted == nil {
		return s.nextInIndexOrder()
	}
	if !s.sorted.complete {
		for {
			seg, err := s.nextInIndexOrder()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
			if err := s.sorted.add(seg); err != nil {
				return nil, s.wrap(err)
			}
			s.stats.SortedSeries += int64(seg.Len())
		}
		s.sorted.sort()
	}
	return s.sorted.next()
}

// wrap names the block in err.
func (s *Stream) wrap(err error) error { return s.plan.block.wrap(err) }

// nextInIndexOrder decodes the next segment. With held-back series restored to their places this is the final order, unless an
// external or dropped name occurs in the block.
func (s *Stream) nextInIndexOrder() (*Segment, error) {
	for !s.done {
		if err := s.ctx.Err(); err != nil {
			return nil, err
		}
		s.startSegment()
		held := s.raw.len()
		if err := s.decode(); err != nil {
			return nil, err
		}
		if err := s.syms.resolve(s.ctx, s.plan.header); err != nil {
			return nil, s.wrap(fmt.Errorf("symbols: %w", err))
		}
		if err := s.filter(held); err != nil {
			return nil, err
		}
		s.done = s.run == nil && s.next == nil && len(s.refs) == 0
		s.order.run(&s.raw, &s.syms, held, s.done)
		seg := s.lay.segment(&s.raw, &s.syms, s.order.out, s.opts.Keep, !s.opts.SkipChunks)
		if seg.Len() > 0 {
			if !s.opts.SkipChunks && s.opts.OnChunks != nil {
				if err := s.opts.OnChunks(seg.chunks.Len()); err != nil {
					return nil, err
				}
			}
			s.stats.Series += int64(seg.Len())
			return seg, nil
		}
	}
	return nil, io.EOF
}

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
	if !errors.Is(err, tsdbfmt.ErrChecksum) && !errors.Is(err, tsdbfmt.ErrCorrupt) {
		return nil, 0, s.wrap(err)
	}
	// Bytes that do not verify may have been damaged on the way or in a cache: they get one more chance, straight from the bucket.
	end := min(off+max(int64(size), s.entrySize), s.seriesEnd)
	again, rerr := s.plan.pages.Refetch(s.ctx, s.index, pagecache.Span{Off: off, End: end}, s.opts.Account)
	if rerr == nil {
		content, size, err = s.tryEntry(runOf(again), off)
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
	if len(s.matchNames) == 0 {
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

// pendingName is a pending matcher with the slot of its label name, once seen.
type pendingName struct {
	name string
	m    *labels.Matcher
}

func (s *Stream) matches(slots []uint32) bool {
	for i := range s.matchNames {
		p := &s.matchNames[i]
		value := ""
		for j := 0; j < len(slots); j += 2 {
			if string(s.syms.at(slots[j])) == p.name {
				value = string(s.syms.at(slots[j+1]))
				break
			}
		}
		if !p.m.Matches(value) {
			return false
		}
	}
	return true
}

// sortedSegments collects the whole answer of a block and puts it in order.
type sortedSegments struct {
	grow     func(int64) error
	segs     []*Segment
	order    []sortedRef
	complete bool
}

type sortedRef struct{ seg, i uint32 }

func (c *sortedSegments) add(seg *Segment) error {
	if c.grow != nil {
		if err := c.grow(seg.Bytes() + 8*int64(seg.Len())); err != nil {
			return fmt.Errorf("its series have label names that are also external or removed labels, so that they must be sorted in memory: %w", err)
		}
	}
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

func (c *sortedSegments) next() (*Segment, error) {
	if len(c.order) == 0 {
		return nil, io.EOF
	}
	n := min(len(c.order), segmentSeries)
	out := &Segment{}
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
