package indexheader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"sort"

	"larder/internal/tsdbfmt"
)

const (
	// wholeIndex is the size in bytes up to which one request reads the whole index, because these
	// bytes cost less than a second round trip.
	wholeIndex = 512 << 10
	// probeSize is the number of bytes that are read of each end of a larger index. Headers of
	// small blocks need nothing else.
	probeSize = 128 << 10
)

// build reads the tables of an index and writes its header to out. out must not be used after an
// error, because the checksums of the tables come last. A build in the background has fewer parts
// in memory.
//
// It requests the size if that is unknown. Then it reads a small index with one request. Of a
// larger one it reads both ends concurrently, and then the parts between them concurrently.
func build(ctx context.Context, f *fetcher, src Source, background bool, out output) error {
	err := buildFrom(ctx, f, src, background, out)
	if corrupt(err) {
		return fmt.Errorf("object %s: %w", src.IndexObject, err)
	}
	return err
}

// corrupt reports whether err says that an index has wrong bytes.
func corrupt(err error) bool {
	return errors.Is(err, tsdbfmt.ErrCorrupt) || errors.Is(err, tsdbfmt.ErrChecksum)
}

func buildFrom(ctx context.Context, f *fetcher, src Source, background bool, out output) error {
	size := src.IndexSize
	if size == 0 {
		var err error
		if size, err = f.size(ctx, src.IndexObject); err != nil {
			return err
		}
	}
	if size < tsdbfmt.IndexHeaderSize+tsdbfmt.TOCSize {
		return fmt.Errorf("%w: index ends at byte %d", tsdbfmt.ErrCorrupt, size)
	}
	ends, err := readEnds(ctx, f, src.IndexObject, size)
	if err != nil {
		return err
	}
	toc, err := tsdbfmt.ParseTOC(ends.head, ends.tail, size)
	if err != nil {
		return err
	}
	rd := Read{Source: src, TOC: toc, Background: background}
	f.tell(rd, 0, ends.head)
	if ends.tailOff > 0 {
		f.tell(rd, ends.tailOff, ends.tail)
	}
	foot := footer{id: src.ID, content: src.Content, indexSize: size, toc: toc}
	if toc.Version == 1 {
		foot.lists = listsStored
	}
	w, err := newWriter(out, foot)
	if err != nil {
		return err
	}

	// One stream reads both tables, so that the reads of the second overlap with the decoding of
	// the first.
	var parts []*part
	if toc.Symbols != 0 {
		parts = ends.split(parts, toc.Symbols, toc.SectionEnd(toc.Symbols, size), f)
	}
	tableAt := len(parts)
	if toc.PostingsTable != 0 {
		parts = ends.split(parts, toc.PostingsTable, toc.SectionEnd(toc.PostingsTable, size), f)
	}
	window := buildWindow
	if background {
		window = backgroundWindow
	}
	s := f.start(ctx, rd, parts, window)
	defer s.close()

	if toc.Symbols != 0 {
		t := tsdbfmt.NewSymbolTable(s, toc.SectionEnd(toc.Symbols, size)-toc.Symbols)
		if err := copySymbols(w, t, toc); err != nil {
			return inSection(toc.Symbols, err)
		}
	}
	if err := w.endSymbols(); err != nil {
		return err
	}
	if toc.PostingsTable != 0 {
		if err := s.skipTo(tableAt); err != nil {
			return err
		}
		t := tsdbfmt.NewOffsetTable(s, toc.SectionEnd(toc.PostingsTable, size)-toc.PostingsTable)
		copyTable := copyOffsets
		if foot.lists == listsStored {
			copyTable = sortOffsets
		}
		if err := copyTable(w, t); err != nil {
			return inSection(toc.PostingsTable, err)
		}
	}
	return inSection(toc.PostingsTable, w.close())
}

// inSection adds the section to an error of the index.
func inSection(off int64, err error) error {
	if corrupt(err) {
		return fmt.Errorf("section at offset %d: %w", off, err)
	}
	return err
}

// copySymbols writes the symbol table.
func copySymbols(w *writer, t *tsdbfmt.SymbolTable, toc tsdbfmt.TOC) error {
	for n := int64(0); t.Next(); n++ {
		ref := n
		if toc.Version == 1 {
			ref = toc.Symbols + t.Offset()
		}
		if ref > math.MaxUint32 {
			return fmt.Errorf("%w: symbol reference %d", tsdbfmt.ErrCorrupt, ref)
		}
		if err := w.addSymbol(uint32(ref), t.Entry()); err != nil {
			return err
		}
	}
	return t.Err()
}

// copyOffsets writes a postings offset table that is sorted (index formats V2 and V3).
func copyOffsets(w *writer, t *tsdbfmt.OffsetTable) error {
	for t.Next() {
		if err := w.addValue(t.Name(), t.Value(), List{Off: t.List()}); err != nil {
			return err
		}
	}
	return t.Err()
}

// sortOffsets writes a postings offset table of index format V1, whose entries and lists have no
// order. The table is in memory as a whole, which is accepted because only Prometheus 2.0 wrote V1,
// in small blocks.
func sortOffsets(w *writer, t *tsdbfmt.OffsetTable) error {
	type entry struct {
		name uint32 // in names
		off  uint64 // of the value in arena
		n    uint32
		list int64
	}
	var (
		names   []string
		numbers = map[string]uint32{}
		arena   []byte
		entries []entry
		starts  []int64
	)
	for t.Next() {
		k, ok := numbers[string(t.Name())]
		if !ok {
			k = uint32(len(names))
			names = append(names, string(t.Name()))
			numbers[names[k]] = k
		}
		entries = append(
			entries,
			entry{name: k, off: uint64(len(arena)), n: uint32(len(t.Value())), list: t.List()},
		)
		arena = append(arena, t.Value()...)
		starts = append(starts, t.List())
	}
	if err := t.Err(); err != nil {
		return err
	}
	value := func(e *entry) []byte { return arena[e.off : e.off+uint64(e.n)] }
	sort.Slice(entries, func(i, j int) bool {
		a, b := &entries[i], &entries[j]
		if a.name != b.name {
			return names[a.name] < names[b.name]
		}
		return bytes.Compare(value(a), value(b)) < 0
	})
	sort.Slice(starts, func(i, j int) bool { return starts[i] < starts[j] })
	for i := range entries {
		e := &entries[i]
		// A list ends at the start of the next one, or at the start of the next section.
		l := List{Off: e.list, End: w.foot.toc.SectionEnd(e.list, w.foot.indexSize)}
		k := sort.Search(len(starts), func(k int) bool { return starts[k] > e.list })
		if k < len(starts) {
			l.End = min(l.End, starts[k])
		}
		if err := w.addValue([]byte(names[e.name]), value(e), l); err != nil {
			return err
		}
	}
	return nil
}

// ends has the bytes of both ends of an index. For a small index each is all of it.
type ends struct {
	head, tail []byte
	tailOff    int64
}

func readEnds(ctx context.Context, f *fetcher, name string, size int64) (ends, error) {
	if size <= max(wholeIndex, 2*f.page) {
		b := make([]byte, size)
		err := f.read(ctx, name, 0, b)
		return ends{head: b, tail: b}, err
	}
	head := min((probeSize+f.page-1)/f.page*f.page, size)
	e := ends{head: make([]byte, head), tailOff: max((size-probeSize)/f.page*f.page, head)}
	e.tail = make([]byte, size-e.tailOff)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	other := make(chan error, 1)
	go func() {
		err := f.read(ctx, name, 0, e.head)
		if err != nil {
			cancel()
		}
		other <- err
	}()
	err := f.read(ctx, name, e.tailOff, e.tail)
	if err != nil {
		cancel()
	}
	herr := <-other
	// The read that failed first has cancelled the other.
	if err == nil || herr != nil && errors.Is(err, context.Canceled) {
		err = herr
	}
	return e, err
}

// split appends the parts of [off, end): bytes of the ends, and ranges of whole pages to read, of
// at most f.partSize bytes.
func (e *ends) split(parts []*part, off, end int64, f *fetcher) []*part {
	inHand := func(b []byte, at, to int64) {
		if off >= at && off < min(end, to) {
			n := min(end, to) - off
			parts = append(parts, &part{off: off, size: n, data: b[off-at : off-at+n]})
			off += n
		}
	}
	inHand(e.head, 0, int64(len(e.head)))
	for stop := min(end, max(e.tailOff, int64(len(e.head)))); off < stop; {
		p := &part{off: off / f.page * f.page}
		p.before = off - p.off
		whole := min((stop+f.page-1)/f.page*f.page, e.tailOff)
		p.size = min(f.partSize, whole-p.off)
		p.after = max(p.off+p.size-stop, 0)
		parts = append(parts, p)
		off = p.off + p.size - p.after
	}
	inHand(e.tail, e.tailOff, e.tailOff+int64(len(e.tail)))
	return parts
}
