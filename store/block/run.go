package block

import (
	"context"
	"errors"
	"fmt"

	"larder/internal/bucket/slots"
	"larder/internal/pagecache"
	"larder/internal/panics"
	"larder/internal/tsdbfmt"
)

// run is some consecutive postings of a stream, with the index pages of their series entries. One
// run is decoded while the next is read.
type run struct {
	refs []uint32
	at   int   // the next of refs to be decoded
	end  int64 // upper bound of the end of the last entry

	pages    *pagecache.Pages
	more     *pagecache.Pages // follow-up: entries that were longer than the first read
	reserved int64            // bytes that are reserved for more
	err      error
	done     chan struct{} // closed when the fields above are set
	need     func()        // says that its reads are no longer look-ahead

	cursor pagecache.Cursor // into pages, because entries are decoded in ascending order
}

// runOf returns a run of pages that were read for one entry.
func runOf(pages *pagecache.Pages) *run { return &run{pages: pages, cursor: pages.Cursor()} }

// entryEnd returns an upper bound of the end of the entry of refs[i], because entries do not
// overlap. The series section ends at seriesEnd.
func (r *run) entryEnd(version, i int, seriesEnd int64) int64 {
	end := r.end
	if i+1 < len(r.refs) {
		end = tsdbfmt.SeriesOffset(version, r.refs[i+1])
	}
	return min(end, seriesEnd)
}

// have returns how many bytes from off on the first read has.
func (r *run) have(off int64) int64 { return r.cursor.Have(off) }

// bytes returns n bytes from off on. They alias a page, or scratch if they lie on several pages.
func (r *run) bytes(off int64, n int, scratch *[]byte) ([]byte, bool) {
	b, arena, ok := r.cursor.Bytes(off, n, *scratch)
	if !ok && r.more != nil {
		b, arena, ok = r.more.Bytes(off, n, *scratch)
	}
	*scratch = arena
	return b, ok
}

// entrySize returns the size of the series entry at off, tsdbfmt.ErrShort if the run does not have
// its whole length prefix.
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

// nextRun waits for the pages of the next run and makes it current. It starts to read the run after
// it. Without further postings there is no current run.
func (s *Stream) nextRun() error {
	r := s.next
	if r == nil {
		if len(s.refs) == 0 {
			return nil
		}
		r = s.startRun()
		s.next = r
	}
	r.need()
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
	// maxRunPages limits the pages of a run, in multiples of its bytes. Entries that lie far apart
	// need a page each.
	maxRunPages = 2
	// firstRunPages limits the bytes of pages of a stream's first run, if RunBytes allows as many.
	// A hundred scattered series should need only one round trip.
	firstRunPages = 1 << 20
	// defaultIndexPage is the size of an index page if Deps.Index does not tell.
	defaultIndexPage = 8 << 10
)

// runMeter adds up the bytes and pages of a run of entries. Entries come in ascending order.
type runMeter struct {
	// size of a page, expected size of an entry, end of the series section
	page, entry, end int64

	bytes, pages int64 // of entries without repeats; distinct pages
	spanEnd      int64
	nextPage     int64 // one more than the last page counted
}

// add adds the entry at off and returns its expected end. empty says that it begins after the
// series section.
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

// runSpans returns where the entries of the next n postings lie: as many as are expected to fill
// the given bytes, or bytes of pages.
func (s *Stream) runSpans(version int, bytes, pages int64) (spans []pagecache.Span, n int) {
	m := runMeter{page: s.indexPage, entry: s.entrySize, end: s.seriesEnd}
	for ; n < len(s.refs) && m.bytes < bytes && (n == 0 || m.pages*m.page < pages); n++ {
		off := tsdbfmt.SeriesOffset(version, s.refs[n])
		end, empty := m.add(off)
		if empty {
			continue // decode returns the error
		}
		if last := len(spans) - 1; last >= 0 && off <= spans[last].End {
			spans[last].End = max(end, spans[last].End)
			continue
		}
		spans = append(spans, pagecache.Span{Off: off, End: end})
	}
	return spans, n
}

// takeRun takes the next postings from those that are in no run yet: all, if the plan is small, or
// as many as are expected to fill runBytes. It returns them, and where their entries lie.
func (s *Stream) takeRun(version int) (refs []uint32, spans []pagecache.Span) {
	n := 0
	if len(s.refs) == len(s.plan.refs) && s.plan.oneRun(s.opts.RunBytes) {
		spans, n = s.runSpans(version, 2*s.opts.RunBytes, 2*maxRunPages*s.opts.RunBytes)
	}
	if n < len(s.refs) {
		pages := min(maxRunPages*s.opts.RunBytes, max(maxRunPages*s.runBytes, firstRunPages))
		spans, n = s.runSpans(version, s.runBytes, pages)
	}
	refs, s.refs = s.refs[:n:n], s.refs[n:]
	s.runBytes = min(2*s.runBytes, s.opts.RunBytes)
	return refs, spans
}

// startRun starts to read the entries of the next run. Its reads are look-ahead until the run is
// needed.
func (s *Stream) startRun() *run {
	version := s.plan.header.IndexVersion()
	refs, spans := s.takeRun(version)
	r := &run{refs: refs, end: s.seriesEnd, done: make(chan struct{})}
	if len(s.refs) > 0 {
		r.end = tsdbfmt.SeriesOffset(version, s.refs[0])
	}
	ctx, need := slots.LookAhead(s.ctx)
	r.need = need
	go func() {
		defer close(r.done)
		r.err = panics.Contained(func() error { return s.readRun(ctx, r, spans, version) })()
	}()
	return r
}

// readRun reads the pages of r, concurrently with the stream. It uses only fields of s that never
// change.
func (s *Stream) readRun(
	ctx context.Context, r *run, spans []pagecache.Span, version int,
) error {
	var err error
	if r.pages, err = s.plan.pages.Fetch(ctx, s.index, spans, s.opts.Account); err != nil {
		return err
	}
	r.cursor = r.pages.Cursor()
	err = s.readTails(ctx, r, version)
	r.cursor = r.pages.Cursor()
	return err
}

// readTails reads what is missing of the run's entries that are longer than expected, by one Fetch.
// It leaves out an entry that claims to reach into the next one: decode returns the error.
func (s *Stream) readTails(ctx context.Context, r *run, version int) error {
	var spans []pagecache.Span
	var scratch []byte
	for i, ref := range r.refs {
		off := tsdbfmt.SeriesOffset(version, ref)
		have := r.have(off)
		if off >= s.seriesEnd {
			continue
		}
		limit := r.entryEnd(version, i, s.seriesEnd)
		size, err := r.entrySize(off, s.seriesEnd, &scratch)
		if errors.Is(err, tsdbfmt.ErrShort) {
			size, err = int(min(s.entrySize, limit-off)), nil
		}
		if end := off + int64(size); err == nil && int64(size) > have && end <= limit {
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
	r.more, err = s.plan.pages.Fetch(ctx, s.index, spans, s.opts.Account)
	return err
}
