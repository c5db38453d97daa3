package block

import (
	"context"
	"errors"
	"fmt"
	"io"

	"larder/internal/pagecache"
)

const (
	// firstRunBytes is how much index the first read of a stream asks for, so that the first series
	// are out soon; each later read doubles it up to StreamOptions.RunBytes.
	firstRunBytes = 64 << 10
	// segmentSeries and segmentEntryBytes bound a segment: what has been decoded stays until its
	// window is sent.
	segmentSeries     = 2048
	segmentEntryBytes = 256 << 10
	// segmentLabelBytes bounds its labels too, unless one series has more.
	segmentLabelBytes = 1 << 20
	// defaultEntryBytes is the size that a series entry is expected to have at most, where
	// meta.json does not say. A longer one costs a follow-up read of its tail.
	defaultEntryBytes = 512
	// longEntry is how many times its size an entry takes at most while it is decoded, a long one:
	// most of it are the places of chunks.
	longEntry = 10
	// maxEntryGuess caps what meta.json may make us expect: one huge entry must not make all others
	// read huge.
	maxEntryGuess = 4 << 10
	// defaultRunBytes is StreamOptions.RunBytes unless it is given.
	defaultRunBytes = 1 << 20
)

// StreamOptions say what a stream makes of a plan's series.
type StreamOptions struct {
	// MinTime and MaxTime bound the request in milliseconds, both included: a series without a
	// chunk in it is left out.
	MinTime, MaxTime int64
	// Keep decides by the final labels whether a series is in the request's shard; nil keeps all.
	Keep func(labels []byte) bool
	// SkipChunks leaves the chunk references out of the segments.
	SkipChunks bool
	// RunBytes is how many bytes of index are read at a time, once the stream has got going;
	// default 1 MiB. The stream holds up to two such runs.
	RunBytes int64
	// Account counts what is read and may refuse it.
	Account *pagecache.Account
	// OnSeries is called with the number of series matched by pending matchers, per segment, where
	// the plan has such; an error ends the stream. The others have been counted from their
	// postings.
	OnSeries func(n int) error
	// OnChunks is called with the number of chunks of a segment, of the series that Keep keeps; an
	// error ends the stream. Not called with SkipChunks.
	OnChunks func(n int) error
	// Reserver reserves what the stream needs beyond Plan.StreamBytes: where labels or series
	// entries are long, or where the series must be sorted in memory. Close releases it. nil:
	// there is no limit.
	Reserver Reserver
	// OnePass sorts the answer in one pass or not at all: if Reserver refuses the bytes, the
	// stream ends with its error.
	OnePass bool
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

// Stream is the series stream of one block: its segments, in the order of the final labels. It is
// used by one goroutine.
type Stream struct {
	plan  *Plan
	opts  StreamOptions
	names nameRules
	index pagecache.Object

	ctx    context.Context
	cancel context.CancelFunc

	maxSeries, maxEntryBytes int // of a segment: segmentSeries and segmentEntryBytes but in tests
	// series to decode next: fewer than maxSeries after some whose symbols did not fit together
	batch int

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
	pending    []pendingMatcher
	lay        layout
	left       []uint32 // decoded series that are in no segment yet: indices of raw, in order

	// bytes that decoding is estimated to need, and those that are reserved beyond them
	estimate, reserved int64

	sorted *seriesSorter // nil unless the answer is sorted in memory
	// Passes after the first read through again, which charges nothing: limits are about the
	// answer, and memory must not decide about them. account is the request's then.
	again   pagecache.Account
	account *pagecache.Account
	stats   StreamStats
	done    bool

	prevInRaw bool         // prevRefs are those of the last series of raw
	decoded   bool         // prevRefs are those of a series
	pairs     []labelSlots // scratch of normalise
}

// Stream starts the series stream of a plan. Close must be called, before the plan is closed.
func (p *Plan) Stream(ctx context.Context, opts StreamOptions) SeriesStream {
	opts.Reserver = reserverOr(opts.Reserver)
	if opts.RunBytes <= 0 {
		opts.RunBytes = defaultRunBytes
	}
	if p.set == nil && p.build == nil {
		return p.decode(ctx, opts)
	}
	if p.build != nil {
		p.build.limitRuns(opts.RunBytes)
	}
	return newSetStream(ctx, p, opts)
}

// decode starts a stream that reads and decodes the series of the plan's postings itself.
func (p *Plan) decode(ctx context.Context, opts StreamOptions) *Stream {
	opts.Reserver = reserverOr(opts.Reserver)
	s := &Stream{plan: p, opts: opts, index: p.index}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.maxSeries, s.maxEntryBytes = segmentSeries, segmentEntryBytes
	s.estimate = p.decodingBytes(opts.RunBytes) + streamOverhead
	s.names = newNameRules(p.header.LabelNames(), p.external, p.dropped)
	s.entrySize, s.indexPage = p.block.entryGuess(), p.block.indexPage()
	toc := p.header.TOC()
	s.seriesEnd = toc.SectionEnd(toc.Series, p.index.Size)
	if p.sorted {
		s.sorted = newSeriesSorter(p.sortBytes(opts.RunBytes), opts.Reserver, opts.OnePass)
	}
	s.begin()
	return s
}

// begin starts at the first posting of the plan. Nothing of an earlier pass is left.
func (s *Stream) begin() {
	s.refs, s.runBytes, s.batch = s.plan.refs, min(firstRunBytes, s.opts.RunBytes), segmentSeries
	if !s.plan.unordered && !s.plan.sorted {
		s.order.largest = s.names.largest()
	}
	s.syms.most = s.opts.RunBytes
	for _, m := range s.plan.pending {
		s.pending = append(s.pending, pendingMatcher{m: m, matches: m.Matches("")})
	}
	s.lay = newLayout(&s.names, min(segmentLabelBytes, 8*s.opts.RunBytes))
	s.done, s.decoded = false, false
}

// limitRuns bounds what the stream reads at a time from now on by n bytes, and what it has for
// sorting by what goes with that.
func (s *Stream) limitRuns(n int64) error {
	if n >= s.opts.RunBytes {
		return nil
	}
	s.opts.RunBytes, s.runBytes = n, min(s.runBytes, n)
	s.estimate = s.plan.decodingBytes(s.opts.RunBytes) + streamOverhead
	if s.sorted == nil {
		return nil
	}
	return s.sorted.limit(s.plan.sortBytes(n))
}

// reserve makes sure that n bytes in total are reserved for what the stream holds besides its runs.
// It tolerates n up to a sixteenth above the estimate, because estimates are no more exact.
func (s *Stream) reserve(n int64) error {
	more := n - s.estimate - s.reserved
	if more <= s.estimate/16 {
		return nil
	}
	if err := s.opts.Reserver.Reserve(more); err != nil {
		return s.wrap(fmt.Errorf("%d bytes of series entries and labels: %w", n, err))
	}
	s.reserved += more
	return nil
}

// used returns the heap that the stream holds besides its runs.
func (s *Stream) used() int64 {
	return s.raw.bytes() + s.carry.bytes() + s.syms.bytes() + int64(
		cap(s.scratch),
	) + 4*int64(
		cap(s.order.stack)+cap(s.order.out),
	)
}

// Stats returns what has been decoded so far.
func (s *Stream) Stats() StreamStats { return s.stats }

// Close ends the stream's reads and waits for them: they end at once, as their context is
// cancelled. No other method may run.
func (s *Stream) Close() {
	s.cancel()
	if s.next != nil {
		<-s.next.done
		s.opts.Reserver.Release(s.next.reserved)
		s.next = nil
	}
	s.dropRun()
	s.moveReads()
	if s.sorted != nil {
		s.sorted.release()
	}
	s.opts.Reserver.Release(s.reserved)
	s.reserved = 0
}

// dropRun drops the current run and releases its bytes.
func (s *Stream) dropRun() {
	if s.run != nil {
		s.opts.Reserver.Release(s.run.reserved)
		s.run = nil
	}
}

// Next returns the next segment, never empty, and io.EOF after the last.
func (s *Stream) Next() (*Segment, error) {
	if s.sorted == nil {
		return s.nextInIndexOrder()
	}
	for {
		seg, err := s.sorted.next(s.estimate, s.reserve)
		if !errors.Is(err, io.EOF) || s.sorted.complete {
			return seg, err
		}
		if err := s.sortPass(); err != nil {
			return nil, err
		}
	}
}

// sortPass decodes all series and keeps the next of them in final order, as many as there are bytes
// for.
func (s *Stream) sortPass() error {
	if s.sorted.passes > 0 {
		s.begin()
	}
	if acct := s.opts.Account; s.sorted.passes == 1 && acct != nil {
		s.opts.Account, s.account = &s.again, acct
	}
	defer s.moveReads()
	for {
		seg, err := s.nextInIndexOrder()
		if errors.Is(err, io.EOF) {
			s.sorted.endPass()
			return nil
		}
		if err != nil {
			return err
		}
		if s.sorted.passes == 0 {
			s.stats.SortedSeries += int64(seg.Len())
		}
		if err := s.sorted.add(seg); err != nil {
			return s.wrap(err)
		}
	}
}

// counted reports whether the series that are being decoded were counted before, by an earlier
// pass.
func (s *Stream) counted() bool { return s.sorted != nil && s.sorted.passes > 0 }

// moveReads adds what passes after the first have read to the request's account, without charging
// for it.
func (s *Stream) moveReads() {
	if s.account != nil {
		s.again.MoveTo(s.account)
	}
}

// wrap names the block in err.
func (s *Stream) wrap(err error) error { return s.plan.block.wrap(err) }

// letGo forgets what segments are decoded through, all but the last of them. A request holds the
// streams of all its blocks to its end, and most are done after one segment.
func (s *Stream) letGo(last *Segment) error {
	// What the estimate has for the segment is Plan.StreamBytes less Plan.PassingBytes.
	keeps := max(last.Bytes()-s.plan.decodingBytes(s.opts.RunBytes)/2, 0)
	if more := keeps - s.reserved; more > seriesOverhead {
		if err := s.opts.Reserver.Reserve(more); err != nil {
			return s.wrap(fmt.Errorf("%d bytes of labels: %w", keeps, err))
		}
		s.reserved = keeps
	} else if more < 0 {
		s.opts.Reserver.Release(-more)
		s.reserved = keeps
	}
	s.raw, s.carry, s.order, s.syms, s.lay = rawSeries{}, rawSeries{}, reorder{}, symbols{}, layout{}
	s.symRefs, s.prevRefs, s.scratch, s.pending = nil, nil, nil, nil
	s.left = nil
	return nil
}

// nextInIndexOrder decodes the next segment. With held-back series restored to their places this is
// the final order, unless an external or dropped name occurs in the block.
func (s *Stream) nextInIndexOrder() (*Segment, error) {
	for !s.done || len(s.left) > 0 {
		if err := s.ctx.Err(); err != nil {
			return nil, err
		}
		if len(s.left) == 0 {
			if err := s.decodeMore(); err != nil {
				return nil, err
			}
		}
		seg, err := s.layOut()
		if err != nil {
			return nil, err
		}
		if s.done && len(s.left) == 0 {
			last := seg
			if s.sorted != nil {
				last = &Segment{} // the sorter accounts for what it keeps of it
			}
			if err := s.letGo(last); err != nil {
				return nil, err
			}
		}
		if seg.Len() > 0 {
			if s.counted() {
				return seg, nil
			}
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

// decodeMore decodes the series of the next segments.
func (s *Stream) decodeMore() error {
	s.startSegment()
	held := s.raw.len()
	if err := s.decode(); err != nil {
		return err
	}
	if err := s.resolve(held); err != nil {
		return err
	}
	if s.plan.irregular {
		s.normalise()
	} else if err := s.checkValues(held); err != nil {
		return err
	}
	if s.run != nil && s.run.at == len(s.run.refs) {
		s.dropRun()
	}
	if err := s.filter(held); err != nil {
		return err
	}
	s.done = s.run == nil && s.next == nil && len(s.refs) == 0
	s.order.run(&s.raw, &s.syms, held, s.done)
	s.left = s.order.out
	return nil
}

// layOut makes the next segment of the series that are left.
func (s *Stream) layOut() (*Segment, error) {
	guess := s.lay.guess(&s.raw, &s.syms, s.left)
	holds := s.used() + int64(min(guess, s.lay.most)) + segmentSeriesBytes*int64(len(s.left))
	if !s.opts.SkipChunks {
		holds += segmentChunkBytes * int64(s.raw.chunks.Len())
	}
	if err := s.reserve(holds); err != nil {
		return nil, err
	}
	seg, left, err := s.lay.segment(
		&s.raw, &s.syms, s.left, guess, s.opts.Keep, !s.opts.SkipChunks,
		func(n int64) error { return s.reserve(holds + n) },
	)
	var long *longLabelsError
	if errors.As(err, &long) {
		return nil, s.entryError(s.entryOffset(long.ref), err)
	}
	if s.lay.unlisted && !s.plan.unordered && !s.plan.sorted {
		return nil, s.irregular(s.entryOffset(s.raw.refs[0]), nameUnlisted)
	}
	s.left = left
	return seg, err
}
