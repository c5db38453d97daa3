package inspection

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"larder/internal/panics"
	"larder/internal/tsdbfmt"
	"larder/store/block"
	"larder/store/catalog"
)

const (
	// checksConcurrency is the number of blocks that are checked at once.
	checksConcurrency = 8
	// readSize is the size of one read of a check.
	readSize = 4 << 20
)

// progress counts finished blocks.
type progress struct {
	mu   sync.Mutex // guards done, and calls of report
	done int

	total  int
	report func(done, total int)
}

func (p *progress) add() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if p.report != nil {
		p.report(p.done, p.total)
	}
}

// Check reads all series entries of each block, and returns the irregular blocks, and the blocks
// that it cannot read, both in the order of blocks. report is called after each block, one call at
// a time; nil: not called. The error is that of ctx.
func (i *Inspector) Check(
	ctx context.Context, blocks []*catalog.Block, report func(done, total int),
) (irregular []Irregular, unread []BadBlock, err error) {
	irregular, unread = []Irregular{}, []BadBlock{}
	type result struct {
		what string
		err  error
	}
	results := make([]result, len(blocks))
	counted := progress{total: len(blocks), report: report}
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(checksConcurrency, len(blocks)) {
		wg.Go(func() {
			for n := range next {
				r := &results[n]
				r.err = panics.Contained(func() (err error) {
					r.what, err = i.check(ctx, blocks[n])
					return err
				})()
				counted.add()
			}
		})
	}
	for n := range blocks {
		if ctx.Err() != nil {
			break
		}
		next <- n
	}
	close(next)
	wg.Wait()
	for n, r := range results {
		switch id := blocks[n].ID.String(); {
		case r.err != nil:
			unread = append(unread, BadBlock{id, "unreadable", r.err.Error()})
		case r.what != "":
			irregular = append(irregular, Irregular{id, r.what})
		}
	}
	return irregular, unread, context.Cause(ctx)
}

// check returns what is irregular about a block, "" for nothing.
func (i *Inspector) check(ctx context.Context, b *catalog.Block) (what string, err error) {
	src := block.Source(b)
	src.Unsized = false // there is nothing to measure with
	h, release, err := i.headers.Acquire(ctx, src)
	if err != nil {
		return "", err
	}
	defer i.headers.Forget(b.ID)
	defer release()
	shape, what, err := block.NewShapeCheck(ctx, h)
	if err != nil || what != "" {
		return what, err
	}
	toc := h.TOC()
	if toc.Series == 0 {
		return "", nil
	}
	entries := entryReader{
		bucket: i.bucket, name: src.IndexObject, version: toc.Version,
		off: toc.Series, end: toc.SectionEnd(toc.Series, h.IndexSize()),
	}
	for what == "" {
		at, content, err := entries.next(ctx)
		switch {
		case err != nil:
			return "", err
		case content == nil:
			return "", nil
		}
		if what, err = shape.Add(content); err != nil {
			return "", fmt.Errorf("object %s, series entry at offset %d: %w", src.IndexObject, at,
				err)
		}
	}
	return what, nil
}

// entryReader reads the series entries of an index in their order.
type entryReader struct {
	bucket   *meteredBucket
	name     string
	version  int
	off, end int64 // of the rest of the section

	buf  []byte // the bytes from off on that were read
	full []byte // the memory of buf
}

// next returns the offset and the content of the next entry, which is valid until the next call,
// and nil at the end of the section.
func (r *entryReader) next(ctx context.Context) (at int64, content []byte, err error) {
	start := tsdbfmt.NextSeriesOffset(r.version, r.off)
	if start >= r.end {
		return 0, nil, nil
	}
	if err := r.skip(ctx, start); err != nil {
		return 0, nil, err
	}
	fail := func(err error) (int64, []byte, error) {
		return 0, nil, fmt.Errorf("object %s, series entry at offset %d: %w", r.name, start, err)
	}
	size, err := tsdbfmt.SeriesEntrySize(r.buf)
	if errors.Is(err, tsdbfmt.ErrShort) {
		if err := r.fill(ctx, 16); err != nil {
			return 0, nil, err
		}
		size, err = tsdbfmt.SeriesEntrySize(r.buf)
	}
	if err != nil {
		return fail(err)
	}
	if r.buf[0] == 0 { // no entry is empty: this is padding before the next section
		return 0, nil, nil
	}
	if int64(size) > r.end-start {
		return fail(fmt.Errorf("%w: it ends after its section", tsdbfmt.ErrCorrupt))
	}
	if err := r.fill(ctx, size); err != nil {
		return 0, nil, err
	}
	if content, err = tsdbfmt.SeriesContent(r.buf[:size]); err != nil {
		return fail(err)
	}
	r.buf = r.buf[size:]
	r.off = start + int64(size)
	return start, content, nil
}

// skip moves to the offset to, and reads at least a byte from there.
func (r *entryReader) skip(ctx context.Context, to int64) error {
	gap := to - r.off
	if gap > int64(len(r.buf)) {
		r.buf = nil
	} else {
		r.buf = r.buf[gap:]
	}
	r.off = to
	return r.fill(ctx, 1)
}

// fill reads until buf has n bytes, or all of the section.
func (r *entryReader) fill(ctx context.Context, n int) error {
	rest := r.end - r.off
	if len(r.buf) >= n || int64(len(r.buf)) == rest {
		return nil
	}
	want := int(min(max(int64(n), readSize), rest))
	if want > cap(r.full) {
		r.full = make([]byte, want)
	}
	had := copy(r.full, r.buf) // moves the bytes to the front
	r.buf = r.full[:want]
	return r.bucket.read(ctx, r.name, r.off+int64(had), r.buf[had:])
}
