package block

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	"larder/internal/pagecache"
	"larder/internal/tsdbfmt"
)

// run is some consecutive postings of a stream and the index pages that hold their series entries. One is decoded while the next is
// being read.
type run struct {
	refs []uint32
	at   int // the next of refs to be decoded

	pages *pagecache.Pages
	more  *pagecache.Pages // follow-up: entries that turned out longer than read at first
	err   error
	done  chan struct{} // closed when pages, more and err are set

	cursor pagecache.Cursor // into pages: entries are decoded in ascending order
}

// runOf returns a run over pages that were read for one entry.
func runOf(pages *pagecache.Pages) *run { return &run{pages: pages, cursor: pages.Cursor()} }

// have returns how many bytes from off on the first read holds.
func (r *run) have(off int64) int64 { return r.pages.Have(off) }

// bytes returns n bytes from off on. They alias a page, or scratch where they straddle two.
func (r *run) bytes(off int64, n int, scratch *[]byte) ([]byte, bool) {
	b, arena, ok := r.cursor.Bytes(off, n, *scratch)
	if !ok && r.more != nil {
		b, arena, ok = r.more.Bytes(off, n, *scratch)
	}
	*scratch = arena
	return b, ok
}

// entrySize returns the size of the series entry at off, tsdbfmt.ErrShort if its length prefix is not at hand.
func (r *run) entrySize(off, end int64, scratch *[]byte) (int, error) {
	n := min(r.have(off), end-off, maxLengthPrefix)
	if n <= 0 {
		if r.more == nil {
			return 0, tsdbfmt.ErrShort
		}
		return runOf(r.more).entrySize(off, end, scratch)
	}
	b, ok := r.bytes(off, int(n), scratch)
	if !ok {
		return 0, tsdbfmt.ErrShort
	}
	size, err := tsdbfmt.SeriesEntrySize(b)
	if errors.Is(err, tsdbfmt.ErrShort) && r.more != nil {
		return runOf(r.more).entrySize(off, end, scratch)
	}
	return size, err
}

// maxLengthPrefix is the longest uvarint.
const maxLengthPrefix = 10

// nextRun makes the next run current, waiting for its pages, and starts to read the one after it. Without a further posting there is
// none.
func (s *Stream) nextRun() error {
	r := s.next
	if r == nil {
		if len(s.refs) == 0 {
			return nil
		}
		r = s.startRun()
	}
	s.next = nil
	select {
	case <-r.done:
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
	if r.err != nil {
		return s.wrap(r.err)
	}
	s.run = r
	if len(s.refs) > 0 {
		s.next = s.startRun()
	}
	return nil
}

// startRun takes postings until their entries are expected to fill runBytes and starts to read them.
func (s *Stream) startRun() *run {
	version := s.plan.header.IndexVersion()
	var spans []pagecache.Span
	bytes := int64(0)
	n := 0
	for ; n < len(s.refs) && bytes < s.runBytes; n++ {
		off := tsdbfmt.SeriesOffset(version, s.refs[n])
		end := min(off+s.entrySize, s.seriesEnd)
		if end <= off {
			continue // decoding reports it
		}
		if last := len(spans) - 1; last >= 0 && off <= spans[last].End {
			bytes += max(end-spans[last].End, 0)
			spans[last].End = max(end, spans[last].End)
			continue
		}
		spans = append(spans, pagecache.Span{Off: off, End: end})
		bytes += end - off
	}
	r := &run{refs: s.refs[:n:n], done: make(chan struct{})}
	s.refs = s.refs[n:]
	s.runBytes = min(2*s.runBytes, s.opts.RunBytes)
	go func() {
		defer close(r.done)
		defer func() {
			if p := recover(); p != nil {
				r.err = fmt.Errorf("panic while reading series entries: %v\n%s", p, debug.Stack())
			}
		}()
		if r.pages, r.err = s.plan.pages.Fetch(s.ctx, s.index, spans, s.opts.Account); r.err != nil {
			return
		}
		r.cursor = r.pages.Cursor()
		r.err = s.readTails(r, version)
		r.cursor = r.pages.Cursor()
	}()
	return r
}

// readTails reads, in one go, what is missing of the run's entries that are longer than expected.
func (s *Stream) readTails(r *run, version int) error {
	var spans []pagecache.Span
	var scratch []byte
	for _, ref := range r.refs {
		off := tsdbfmt.SeriesOffset(version, ref)
		have := r.have(off)
		if off >= s.seriesEnd {
			continue
		}
		size, err := r.entrySize(off, s.seriesEnd, &scratch)
		if errors.Is(err, tsdbfmt.ErrShort) {
			size, err = int(s.entrySize), nil
		}
		if end := off + int64(size); err == nil && int64(size) > have && end <= s.seriesEnd {
			spans = append(spans, pagecache.Span{Off: off, End: end})
		}
	}
	if len(spans) == 0 {
		return nil
	}
	slices.SortFunc(spans, func(a, b pagecache.Span) int { return int(a.Off - b.Off) })
	var err error
	r.more, err = s.plan.pages.Fetch(s.ctx, s.index, spans, s.opts.Account)
	return err
}

// seriesSectionEnd returns where the series section of an index of the given size ends: at the section that comes next.
func seriesSectionEnd(toc tsdbfmt.TOC, size int64) int64 {
	end := size
	for _, off := range []int64{toc.Symbols, toc.LabelIndices, toc.LabelIndicesTable, toc.Postings, toc.PostingsTable} {
		if off > toc.Series && off < end {
			end = off
		}
	}
	return end
}
