package postings

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"larder/internal/pagecache"
	"larder/internal/tsdbfmt"
	"larder/store/indexheader"
)

const (
	// markedValues is the number of selected values from which lists are marked by a bit instead of
	// kept, because a million lists of 16 bytes each would need 16 MB. Marked lists must be looked
	// up a second time.
	markedValues = 32 << 10
	// batchLists and batchPageBytes bound how much of the marked lists is read at a time. Larger
	// batches would save round trips to the bucket: a million lists of one series each are four
	// batches.
	batchLists     = 128 << 10
	batchPageBytes = 4 << 20

	// listBytes and refBytes are the sizes of a list of a group and of a posting.
	listBytes, refBytes = 16, 4
)

// listing has the lists of a group.
type listing struct {
	lists []indexheader.List // ascending by offset; nil if they are marked
	marks *marks             // nil if lists has them
	count int
	bytes int64 // of the lists
	refs  int64 // upper bound of their postings
}

// marks has a bit for each value of a name, beginning with the first value that is not less than
// from. The bit says whether the value is selected.
type marks struct {
	name, from string
	bits       []uint64
}

func (m *marks) set(i int) {
	for i/64 >= len(m.bits) {
		m.bits = append(m.bits, 0)
	}
	m.bits[i/64] |= 1 << (i % 64)
}

func (m *marks) has(i int) bool { return i/64 < len(m.bits) && m.bits[i/64]&(1<<(i%64)) != 0 }

func (l *listing) add(list indexheader.List) {
	if l.marks == nil {
		l.lists = append(l.lists, list)
	}
	l.count++
	l.bytes += list.End - list.Off
	l.refs += tsdbfmt.MaxPostingsCount(list.End - list.Off)
}

// batches calls f with the marked lists, at most limit at a time, ascending by offset. f must not
// keep the slice.
func (l *listing) batches(
	ctx context.Context, hdr header, pageBytes int64, limit int, f func([]indexheader.List) error,
) error {
	m := l.marks
	batch := make([]indexheader.List, 0, min(l.count, limit))
	flush := func() error {
		byOff := func(a, b indexheader.List) int { return cmp.Compare(a.Off, b.Off) }
		if !slices.IsSortedFunc(batch, byOff) { // format V1
			slices.SortFunc(batch, byOff)
		}
		err := f(batch)
		batch = batch[:0]
		return err
	}
	i, pages, next := 0, int64(0), int64(0)
	err := hdr.Values(ctx, m.name, m.from, func(_ []byte, list indexheader.List) (bool, error) {
		i++
		if !m.has(i - 1) {
			return i/64 < len(m.bits), nil
		}
		first, last := list.Off/pageBytes, (list.End-1)/pageBytes+1
		more := last - first
		if first >= next-1 { // in format V1 lists are in no order
			more = max(last-max(first, next), 0)
		}
		if len(batch) > 0 && (len(batch) == limit || (pages+more)*pageBytes > batchPageBytes) {
			if err := flush(); err != nil {
				return false, err
			}
			pages, more = 0, last-first
		}
		batch = append(batch, list)
		pages += more
		next = last
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("postings of label %q: %w", m.name, err)
	}
	if len(batch) > 0 {
		return flush()
	}
	return nil
}

// spansOf appends the byte ranges of lists, which ascend, to out. Adjacent lists share a range.
func spansOf(out []pagecache.Span, lists []indexheader.List) []pagecache.Span {
	for _, l := range lists {
		if n := len(out); n > 0 && out[n-1].Off <= l.Off && l.Off <= out[n-1].End {
			out[n-1].End = max(out[n-1].End, l.End)
			continue
		}
		out = append(out, pagecache.Span{Off: l.Off, End: l.End})
	}
	return out
}

// neededBytes estimates the memory for evaluating the plan, as an upper bound: lists and their
// pages, one batch of marked lists, the first set, the next one, and a copy of the larger to sort
// it.
func (p *plan) neededBytes(spans []pagecache.Span, pageBytes int64) int64 {
	n, nextPage := int64(len(spans))*listBytes, int64(0)
	for _, s := range spans { // ascending: neighbours share pages
		end := (s.End-1)/pageBytes + 1
		n += max(end-max(s.Off/pageBytes, nextPage), 0) * pageBytes
		nextPage = max(nextPage, end)
	}
	first, next, batch := int64(0), int64(0), int64(0)
	for i, l := range slices.Concat(p.adds, p.subtracts) {
		if l.marks != nil {
			n += int64(len(l.marks.bits)) * 8
			count := int64(l.count)
			pages := min(l.bytes+count*pageBytes, batchPageBytes+l.bytes/count+pageBytes)
			batch = max(batch, min(count, batchLists)*2*listBytes+pages)
		}
		n += int64(len(l.lists)) * listBytes
		if i == 0 {
			first = l.refs
		} else {
			next = max(next, l.refs)
		}
	}
	return n + batch + refBytes*(first+next+max(first, next))
}
