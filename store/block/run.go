package block

import (
	"errors"
	"fmt"

	"larder/internal/pagecache"
	"larder/internal/panics"
	"larder/internal/tsdbfmt"
)

// run is some consecutive postings of a stream and the index pages that hold their series entries.
// One is decoded while the next is being read.
type run struct {
	refs []uint32
	at   int   // the next of refs to be decoded
	end  int64 // where the entry of the last of refs ends at the latest

	pages    *pagecache.Pages
	more     *pagecache.Pages // follow-up: entries that turned out longer than read at first
	reserved int64            // bytes that are reserved for more
	err      error
	done     chan struct{} // closed when what is above is set

	cursor pagecache.Cursor // into pages: entries are decoded in ascending order
}

// runOf returns a run over pages that were read for one entry.
func runOf(pages *pagecache.Pages) *run { return &run{pages: pages, cursor: pages.Cursor()} }

// entryEnd returns where the entry of refs[i] ends at the latest: entries do not overlap. The
// series section ends at seriesEnd.
func (r *run) entryEnd(version, i int, seriesEnd int64) int64 {
	end := r.end
	if i+1 < len(r.refs) {
		end = tsdbfmt.SeriesOffset(version, r.refs[i+1])
	}
	return min(end, seriesEnd)
}

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

// entrySize returns the size of the series entry at off, tsdbfmt.ErrShort if its length prefix is
// not at hand.
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

// nextRun makes the next run current, waiting for its pages, and starts to read the one after it.
// Without a further posting there is none.
func (s *Stream) nextRun() error {
	r := s.next
	if r == nil {
		if len(s.refs) == 0 {
			return nil
		}
		r = s.startRun()
		s.next = r
	}
	select {
	case <-r.done:
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
	s.next = nil
	if r.err != nil {
		return s.wrap(r.err)
	}
	s.run = r
	if len(s.refs) > 0 {
		s.next = s.startRun()
	}
	return nil
}

const (
	// maxRunPages bounds the pages of a run, in multiples of its bytes: entries that lie far apart
	// pin a page each.
	maxRunPages = 2
	// firstRunPages is how many bytes of pages the first run of a stream may have, where RunBytes
	// allows it: a hundred scattered series should not take more round trips than one.
	firstRunPages = 1 << 20
	// defaultIndexPage is the size of an index page where Deps.Index does not say.
	defaultIndexPage = 8 << 10
)

// runMeter adds up what a run of entries takes. Entries come in ascending order.
type runMeter struct {
	// the size of a page, what an entry is expected to have, the end of the series section
	page, entry, end int64

	bytes, pages int64 // of entries without repeats; distinct pages
	spanEnd      int64
	nextPage     int64 // one more than the last page counted
}

// add adds the entry at off and returns where it is expected to end; empty says that it begins
// behind the series section.
func (m *runMeter) add(off int64) (end int64, empty bool) {
	if end = min(off+m.entry, m.end); end <= off {
		return end, true
	}
	m.bytes += max(end-max(off, m.spanEnd), 0)
	m.spanEnd = max(m.spanEnd, end)
	last := (end-1)/m.page + 1
	m.pages += max(last-max(off/m.page, m.nextPage), 0)
	m.nextPage = max(m.nextPage, last)
	return end, false
}

// startRun takes postings until their entries are expected to fill runBytes and starts to read
// them.
func (s *Stream) startRun() *run {
	version := s.plan.header.IndexVersion()
	var spans []pagecache.Span
	m := runMeter{page: s.indexPage, entry: s.entrySize, end: s.seriesEnd}
	maxPages := min(maxRunPages*s.opts.RunBytes, max(maxRunPages*s.runBytes, firstRunPages))
	n := 0
	for ; n < len(s.refs) && m.bytes < s.runBytes && (n == 0 || m.pages*m.page < maxPages); n++ {
		off := tsdbfmt.SeriesOffset(version, s.refs[n])
		end, empty := m.add(off)
		if empty {
			continue // decoding reports it
		}
		if last := len(spans) - 1; last >= 0 && off <= spans[last].End {
			spans[last].End = max(end, spans[last].End)
			continue
		}
		spans = append(spans, pagecache.Span{Off: off, End: end})
	}
	r := &run{refs: s.refs[:n:n], end: s.seriesEnd, done: make(chan struct{})}
	if s.refs = s.refs[n:]; len(s.refs) > 0 {
		r.end = tsdbfmt.SeriesOffset(version, s.refs[0])
	}
	s.runBytes = min(2*s.runBytes, s.opts.RunBytes)
	go func() {
		defer close(r.done)
		r.err = panics.Contained(func() error { return s.readRun(r, spans, version) })()
	}()
	return r
}

// readRun reads the pages of r. It runs beside the stream: of s it uses only what does not change.
func (s *Stream) readRun(r *run, spans []pagecache.Span, version int) error {
	var err error
	if r.pages, err = s.plan.pages.Fetch(s.ctx, s.index, spans, s.opts.Account); err != nil {
		return err
	}
	r.cursor = r.pages.Cursor()
	err = s.readTails(r, version)
	r.cursor = r.pages.Cursor()
	return err
}

// readTails reads, in one go, what is missing of the run's entries that are longer than expected.
// What is longer than the space up to the next one is damaged: decoding reports it.
func (s *Stream) readTails(r *run, version int) error {
	var spans []pagecache.Span
	var scratch []byte
	for i, ref := range r.refs {
		off := tsdbfmt.SeriesOffset(version, ref)
		have := r.have(off)
		if off >= s.seriesEnd {
			continue
		}
		most := r.entryEnd(version, i, s.seriesEnd)
		size, err := r.entrySize(off, s.seriesEnd, &scratch)
		if errors.Is(err, tsdbfmt.ErrShort) {
			size, err = int(min(s.entrySize, most-off)), nil
		}
		if end := off + int64(size); err == nil && int64(size) > have && end <= most {
			spans = appendSpan(spans, off, end)
		}
	}
	if len(spans) == 0 {
		return nil
	}
	n := pageBytes(spans, s.indexPage)
	if err := s.opts.Reserver.Reserve(n); err != nil {
		return fmt.Errorf("%d bytes of series entries that are longer than expected: %w", n, err)
	}
	r.reserved = n
	var err error
	r.more, err = s.plan.pages.Fetch(s.ctx, s.index, spans, s.opts.Account)
	return err
}
