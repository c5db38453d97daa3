package block

import (
	"context"
	"errors"
	"fmt"
	"io"

	"larder/internal/pagecache"
	"larder/internal/telemetry"
)

const (
	// firstRunBytes is the size of a stream's first read, if it needs more than one: 3 ms of a read
	// with 80 MB/s, so that the first series are sent soon. Each later read is twice as large, up
	// to StreamOptions.RunBytes.
	firstRunBytes = 256 << 10
	// segmentSeries and segmentEntryBytes limit a segment, because it stays in memory until its
	// window is sent.
	segmentSeries     = 2048
	segmentEntryBytes = 256 << 10
	// segmentLabelBytes limits its labels, unless one series has more.
	segmentLabelBytes = 1 << 20
	// defaultEntryBytes is the expected size limit of a series entry if meta.json does not tell. A
	// longer entry costs a follow-up read of its tail.
	defaultEntryBytes = 512
	// longEntry is how many times its size a long entry needs while it is decoded, because it
	// consists mostly of chunk references.
	longEntry = 10
	// maxEntryGuess limits the expected size of an entry, because one huge entry in meta.json must
	// not make all reads huge.
	maxEntryGuess = 4 << 10
	// defaultRunBytes is the default of StreamOptions.RunBytes.
	defaultRunBytes = 1 << 20
)

// StreamOptions say what a stream returns of a plan's series.
type StreamOptions struct {
	// MinTime and MaxTime are the time range in milliseconds, both included. Series without a chunk
	// in it are skipped.
	MinTime, MaxTime int64
	// Keep reports by its final labels whether a series is in the request's shard. nil keeps all.
	Keep func(labels []byte) bool
	// SkipChunks makes segments without chunk references.
	SkipChunks bool
	// Collect says that the caller needs strings instead of series. It requires SkipChunks and a
	// plan with PlanOptions.Unordered. Streams of series sets return all.
	Collect Collect
	// RunBytes is how many bytes of index are read at a time, after smaller reads at the beginning;
	// default 1 MiB. The stream holds up to two such runs.
	RunBytes int64
	// Account counts reads and may refuse them.
	Account *pagecache.Account
	// OnSeries is called for each segment with the number of series that match, if the plan has
	// pending matchers. Its error ends the stream. Series of other plans were counted as postings.
	OnSeries func(n int) error
	// OnChunks is called for each segment with the number of its chunks, unless SkipChunks is set.
	// Its error ends the stream.
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
	Matched      int64 // series that overlap the time range and match; with Collect, returned ones
	Series       int64 // series returned: matched ones that Keep keeps
	FollowUps    int64 // entries that were longer than the first read
	SortedSeries int64 // series that were sorted in memory
	OutOfRange   int64 // series whose chunks are all outside of the time range
}

// Add adds o to s.
func (s *StreamStats) Add(o StreamStats) {
	s.Entries += o.Entries
	s.EntryBytes += o.EntryBytes
	s.Matched += o.Matched
	s.Series += o.Series
	s.FollowUps += o.FollowUps
	s.OutOfRange += o.OutOfRange
	s.SortedSeries += o.SortedSeries
}

// Stream decodes the series of one block. It returns segments in the order of the final labels. It
// is used by one goroutine.
type Stream struct {
	plan  *Plan
	opts  StreamOptions
	names nameRules
	index pagecache.Object

	ctx    context.Context // until, with the span for reads
	until  context.Context
	cancel context.CancelFunc

	maxSeries, maxEntryBytes int // segmentSeries and segmentEntryBytes, except in tests
	batch                    int // limit of series to decode next: less if symbols did not fit

	refs      []uint32 // postings that are in no run yet
	runBytes  int64
	run, next *run
	entrySize int64
	indexPage int64
	seriesEnd int64 // end of the series section of the index

	decodeBuffers // from Deps.Buffers while borrowed
	borrowed      bool
	lastEnd       int64 // begin of the entry after the one decoded last
	lastKept      bool  // the last chunk of that entry was kept, and has no bound yet
	pending       []pendingMatcher
	narrow        narrowing
	lay           layout
	left          []uint32 // decoded series that are in no segment yet: indices in raw, in order

	// bytes that decoding is estimated to need, and those that are reserved beyond them
	estimate, reserved int64

	sorted *seriesSorter // nil unless the series are sorted in memory
	// again is the account of passes after the first; account is the request's meanwhile. They
	// charge nothing, because limits must not depend on how much memory is free.
	again   pagecache.Account
	account *pagecache.Account
	stats   StreamStats
	done    bool

	prevInRaw bool         // prevRefs are those of the last series of raw
	decoded   bool         // prevRefs are those of a series
	pairs     []labelSlots // scratch of normalise
}

// Stream starts the series stream of a plan. The caller closes the stream before the plan.
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

// decode starts a stream that decodes the series of the plan's postings.
func (p *Plan) decode(ctx context.Context, opts StreamOptions) *Stream {
	opts.Reserver = reserverOr(opts.Reserver)
	s := &Stream{plan: p, opts: opts, index: p.index}
	s.until, s.cancel = context.WithCancel(ctx)
	s.ctx = s.until
	s.maxSeries, s.maxEntryBytes = segmentSeries, segmentEntryBytes
	s.estimate = p.decodingBytes(&opts) + streamOverhead
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

// tracedBy makes later reads spans below that of ctx.
func (s *Stream) tracedBy(ctx context.Context) { s.ctx = telemetry.TracedBy(s.until, ctx) }

// begin starts a pass at the first posting of the plan.
func (s *Stream) begin() {
	s.refs, s.runBytes, s.batch = s.plan.refs, min(firstRunBytes, s.opts.RunBytes), segmentSeries
	if !s.plan.unordered && !s.plan.sorted {
		s.order.largest = s.names.largest()
	}
	s.syms.limit = s.opts.RunBytes
	for _, m := range s.plan.pending {
		s.pending = append(s.pending, pendingMatcher{m: m, matches: m.Matches("")})
	}
	s.narrow = newNarrowing(s.opts.Collect, s.plan)
	rules := &s.names
	if s.narrow.on && !s.narrow.names {
		// The caller needs values of a label that is not external.
		rules = &nameRules{dropped: rules.dropped, clash: rules.clash}
	}
	s.lay = newLayout(rules, min(segmentLabelBytes, 8*s.opts.RunBytes))
	s.done, s.decoded = false, false
}

// limitRuns limits later reads to n bytes at a time, and the bytes for sorting accordingly.
func (s *Stream) limitRuns(n int64) error {
	if n >= s.opts.RunBytes {
		return nil
	}
	s.opts.RunBytes, s.runBytes = n, min(s.runBytes, n)
	s.estimate = s.plan.decodingBytes(&s.opts) + streamOverhead
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

// used returns the memory of the stream besides its runs.
func (s *Stream) used() int64 { return s.decodeBuffers.bytes() }

// borrow gets the buffers to decode with, if the stream has none. Half of the estimate is for them.
func (s *Stream) borrow() {
	if s.borrowed {
		return
	}
	largest, limit := s.order.largest, s.syms.limit
	s.decodeBuffers, s.borrowed = s.plan.block.deps.Buffers.take(s.estimate/2), true
	s.order.largest, s.syms.limit = largest, limit
}

// giveBack returns the buffers. Nothing may refer to them.
func (s *Stream) giveBack() {
	if s.borrowed {
		s.plan.block.deps.Buffers.keep(s.decodeBuffers)
	}
	s.decodeBuffers, s.borrowed, s.left = decodeBuffers{}, false, nil
}

// Stats returns what was decoded so far.
func (s *Stream) Stats() StreamStats { return s.stats }

// Close cancels the stream's reads and waits until they have ended. No other method may run.
func (s *Stream) Close() {
	s.cancel()
	if s.next != nil {
		<-s.next.done
		s.opts.Reserver.Release(s.next.reserved)
		s.next = nil
	}
	s.dropRun()
	s.giveBack()
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

// Next returns the next segment, which is never empty, and io.EOF after the last one.
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

// sortPass decodes all series. The sorter keeps the next ones in final order, as many as fit.
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

// counted reports whether an earlier pass has counted the series that are being decoded.
func (s *Stream) counted() bool { return s.sorted != nil && s.sorted.passes > 0 }

// moveReads adds the reads of passes after the first to the request's account, without charging
// them.
func (s *Stream) moveReads() {
	if s.account != nil {
		s.again.MoveTo(s.account)
	}
}

// wrap names the block in err.
func (s *Stream) wrap(err error) error { return s.plan.block.wrap(err) }

// dropBuffers drops all decoding buffers once the last segment is decoded, and keeps its bytes
// reserved. It matters because a request keeps the streams of all its blocks to its end, and most
// of them have one segment.
func (s *Stream) dropBuffers(last *Segment) error {
	// The estimate includes Plan.StreamBytes less Plan.PassingBytes for the segment.
	keeps := max(last.Bytes()-s.plan.decodingBytes(&s.opts)/2, 0)
	if more := keeps - s.reserved; more > seriesOverhead {
		if err := s.opts.Reserver.Reserve(more); err != nil {
			return s.wrap(fmt.Errorf("%d bytes of labels: %w", keeps, err))
		}
		s.reserved = keeps
	} else if more < 0 {
		s.opts.Reserver.Release(-more)
		s.reserved = keeps
	}
	s.giveBack()
	s.lay, s.narrow, s.pending = layout{}, narrowing{}, nil
	return nil
}

// nextInIndexOrder decodes the next segment. Held-back series are in their places, so that this is
// the final order unless the block has an external or dropped name.
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
				last = &Segment{} // the sorter reserves the bytes that it keeps of it
			}
			if err := s.dropBuffers(last); err != nil {
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
	if s.run == nil {
		if err := s.nextRun(); err != nil {
			return err
		}
	}
	s.borrow() // not before, because a stream that waits for its pages needs no buffers
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
	if s.narrow.on {
		s.sortNarrowed()
	}
	return nil
}

// layOut makes the next segment of the remaining series.
func (s *Stream) layOut() (*Segment, error) {
	guess := s.lay.guess(&s.raw, &s.syms, s.left)
	needs := s.used() + int64(min(guess, s.lay.limit)) + segmentSeriesBytes*int64(len(s.left))
	if !s.opts.SkipChunks {
		needs += segmentChunkBytes * int64(s.raw.chunks.Len())
	}
	if err := s.reserve(needs); err != nil {
		return nil, err
	}
	seg, left, err := s.lay.segment(
		&s.raw, &s.syms, s.left, guess, s.opts.Keep, !s.opts.SkipChunks,
		func(n int64) error { return s.reserve(needs + n) },
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
