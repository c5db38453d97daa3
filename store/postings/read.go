package postings

import (
	"context"
	"errors"
	"fmt"

	"larder/internal/pagecache"
	"larder/internal/tsdbfmt"
	"larder/store/indexheader"
)

// listReader decodes posting lists from the pages of an index.
type listReader struct {
	ctx       context.Context
	header    header
	pages     Pages
	object    pagecache.Object
	account   *pagecache.Account
	pageBytes int64
	batch     int // limit of the marked lists that are read at a time

	cursor  pagecache.Cursor
	scratch []byte // for a list that lies on several pages; used again for the next list
	sorter  sorter
	// again holds the pages that were read a second time. A damaged page damages every list on it,
	// and reading it again once repairs them all.
	again   []*pagecache.Pages
	repairs int
}

// fetch reads the pages of the lists in spans.
func (r *listReader) fetch(spans []pagecache.Span) error {
	if len(spans) == 0 {
		return nil
	}
	for _, s := range spans {
		// The header verifies itself, but it may belong to another index.
		if s.Off < 0 || s.Off >= s.End || s.End > r.object.Size {
			return fmt.Errorf(
				"object %s of %d bytes: %w: posting list at [%d, %d)", r.object.Name, r.object.Size,
				tsdbfmt.ErrCorrupt, s.Off, s.End,
			)
		}
	}
	pages, err := r.pages.Fetch(r.ctx, r.object, spans, r.account)
	if err != nil {
		return fmt.Errorf("fetch postings: %w", err)
	}
	r.cursor = pages.Cursor()
	return nil
}

// set returns the postings of a group as one set. It uses the memory of dst if that is enough.
func (r *listReader) set(dst []uint32, l *listing) ([]uint32, error) {
	if int64(cap(dst)) < l.refs {
		dst = make([]uint32, 0, l.refs)
	}
	var err error
	if l.marks == nil {
		dst, err = r.decode(dst, l.lists)
	} else {
		var spans []pagecache.Span
		fetched := r.cursor
		decode := func(lists []indexheader.List) (err error) {
			spans = spansOf(spans[:0], lists)
			if err = r.fetch(spans); err == nil {
				dst, err = r.decode(dst, lists)
			}
			r.again = nil // other batches have other pages
			return err
		}
		err = l.batches(r.ctx, r.header, r.pageBytes, r.batch, decode)
		r.cursor = fetched
	}
	if err != nil {
		return nil, err
	}
	return r.sorter.sort(dst), nil
}

// decode appends the postings of lists to dst.
func (r *listReader) decode(dst []uint32, lists []indexheader.List) ([]uint32, error) {
	for i, l := range lists {
		if i%checkEvery == 0 {
			if err := r.ctx.Err(); err != nil {
				return nil, err
			}
		}
		var err error
		if dst, err = r.list(dst, l); err != nil {
			return nil, fmt.Errorf(
				"object %s: posting list at offset %d: %w", r.object.Name, l.Off, err,
			)
		}
	}
	return dst, nil
}

// joinBytes is the size from which a list surely lies on several pages, so that scratch grows in
// one step.
const joinBytes = 64 << 10

// list appends the postings of one list to dst. If the list does not decode, it is read again from
// the bucket, once.
func (r *listReader) list(dst []uint32, l indexheader.List) ([]uint32, error) {
	n := int(l.End - l.Off)
	if n >= joinBytes && n > cap(r.scratch) {
		r.scratch = make([]byte, 0, n)
	}
	b, scratch, ok := r.cursor.Bytes(l.Off, n, r.scratch[:0])
	r.scratch = scratch
	if !ok {
		return dst, errNotFetched
	}
	out, err := tsdbfmt.AppendPostings(dst, b)
	if err == nil {
		return out, nil
	}
	for _, again := range r.again {
		if b, scratch, ok = again.Bytes(l.Off, n, r.scratch[:0]); ok {
			r.scratch = scratch
			if out, err = tsdbfmt.AppendPostings(dst, b); err == nil {
				r.repairs++
				return out, nil
			}
		}
	}
	again, err := r.pages.Refetch(
		r.ctx, r.object, pagecache.Span{Off: l.Off, End: l.End}, r.account,
	)
	if err != nil {
		return dst, fmt.Errorf("read again: %w", err)
	}
	if b, scratch, ok = again.Bytes(l.Off, n, r.scratch[:0]); !ok {
		return dst, errNotFetched
	}
	r.scratch = scratch
	if out, err = tsdbfmt.AppendPostings(dst, b); err != nil {
		return dst, err
	}
	r.again = append(r.again, again)
	r.repairs++
	return out, nil
}

// errNotFetched is returned for a list that the fetched pages do not cover.
var errNotFetched = errors.New("pages do not cover it")
