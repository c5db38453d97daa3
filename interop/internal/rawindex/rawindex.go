package rawindex

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
)

// Label is a name and a value in a series entry. Either may be empty.
type Label struct{ Name, Value string }

// Chunk is a chunk's position and times in the series entry. Times are in milliseconds. The lowest
// 32 bits of Ref are the offset in the chunk file, the bits above are its number.
type Chunk struct {
	Ref              uint64
	MinTime, MaxTime int64
}

// Series is one series entry.
type Series struct {
	Labels []Label
	Chunks []Chunk
}

const (
	magic   = 0xBAAAD700
	version = 2
	// entryAlign is the alignment of series entries, and the unit of postings.
	entryAlign = 16
	// listAlign is the alignment of posting lists.
	listAlign = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns an index file of format version 2 that contains the series exactly as given:
// entries in the order of the slice, with their labels and chunks in order. A series is once in the
// posting list of every pair in its entry, and in the list of all series. Symbols are sorted.
func Encode(series []Series) ([]byte, error) {
	w := writer{}
	w.u32(magic)
	w.buf = append(w.buf, version)
	symbolsAt := len(w.buf)
	w.symbols(series)
	w.align(entryAlign)
	seriesAt := len(w.buf)
	lists := map[Label][]uint32{}
	for _, s := range series {
		ref, err := w.entry(s)
		if err != nil {
			return nil, err
		}
		for _, l := range append([]Label{{}}, s.Labels...) {
			if refs := lists[l]; len(refs) == 0 || refs[len(refs)-1] != ref {
				lists[l] = append(refs, ref)
			}
		}
	}
	w.align(listAlign)
	listsAt := len(w.buf)
	var keys []Label
	for l := range lists {
		keys = append(keys, l)
	}
	slices.SortFunc(keys, func(a, b Label) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value))
	})
	offsets := make([]uint64, len(keys))
	for i, l := range keys {
		w.align(listAlign)
		offsets[i] = uint64(len(w.buf))
		w.section(func() {
			w.u32(uint32(len(lists[l])))
			for _, ref := range lists[l] {
				w.u32(ref)
			}
		})
	}
	labelOffsetsAt := len(w.buf)
	w.section(func() { w.u32(0) }) // no label indexes: readers of version 2 ignore them
	offsetsAt := len(w.buf)
	w.section(func() {
		w.u32(uint32(len(keys)))
		for i, l := range keys {
			w.buf = append(w.buf, 2) // strings in the key
			w.text(l.Name)
			w.text(l.Value)
			w.uvarint(offsets[i])
		}
	})
	toc := len(w.buf)
	for _, at := range []int{symbolsAt, seriesAt, listsAt, labelOffsetsAt, listsAt, offsetsAt} {
		w.buf = binary.BigEndian.AppendUint64(w.buf, uint64(at))
	}
	w.checksum(toc)
	return w.buf, nil
}

// writer appends to an index file.
type writer struct {
	buf     []byte
	numbers map[string]uint32 // of the symbols
}

func (w *writer) u32(v uint32)     { w.buf = binary.BigEndian.AppendUint32(w.buf, v) }
func (w *writer) uvarint(v uint64) { w.buf = binary.AppendUvarint(w.buf, v) }
func (w *writer) text(s string)    { w.uvarint(uint64(len(s))); w.buf = append(w.buf, s...) }

func (w *writer) align(n int) {
	for len(w.buf)%n != 0 {
		w.buf = append(w.buf, 0)
	}
}

// checksum appends the checksum of the bytes since from.
func (w *writer) checksum(from int) { w.u32(crc32.Checksum(w.buf[from:], castagnoli)) }

// section writes a length of four bytes, what content appends, and the checksum of the content.
func (w *writer) section(content func()) {
	at := len(w.buf)
	w.u32(0)
	content()
	binary.BigEndian.PutUint32(w.buf[at:], uint32(len(w.buf)-at-4))
	w.checksum(at + 4)
}

func (w *writer) symbols(series []Series) {
	w.numbers = map[string]uint32{}
	var all []string
	for _, s := range series {
		for _, l := range s.Labels {
			all = append(all, l.Name, l.Value)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	w.section(func() {
		w.u32(uint32(len(all)))
		for i, s := range all {
			w.numbers[s] = uint32(i)
			w.text(s)
		}
	})
}

// entry writes a series entry and returns its posting. Differences between chunks follow the
// format, modulo 2^64, so that chunks may be in any order.
func (w *writer) entry(s Series) (uint32, error) {
	w.align(entryAlign)
	ref := len(w.buf) / entryAlign
	if ref > math.MaxUint32 {
		return 0, fmt.Errorf("series %v: the index would be larger than 64 GiB", s.Labels)
	}
	e := binary.AppendUvarint(nil, uint64(len(s.Labels)))
	for _, l := range s.Labels {
		e = binary.AppendUvarint(e, uint64(w.numbers[l.Name]))
		e = binary.AppendUvarint(e, uint64(w.numbers[l.Value]))
	}
	e = binary.AppendUvarint(e, uint64(len(s.Chunks)))
	for i, c := range s.Chunks {
		if i == 0 {
			e = binary.AppendVarint(e, c.MinTime)
			e = binary.AppendUvarint(e, uint64(c.MaxTime-c.MinTime))
			e = binary.AppendUvarint(e, c.Ref)
			continue
		}
		before := s.Chunks[i-1]
		e = binary.AppendUvarint(e, uint64(c.MinTime-before.MaxTime))
		e = binary.AppendUvarint(e, uint64(c.MaxTime-c.MinTime))
		e = binary.AppendVarint(e, int64(c.Ref-before.Ref))
	}
	w.uvarint(uint64(len(e)))
	from := len(w.buf)
	w.buf = append(w.buf, e...)
	w.checksum(from)
	return uint32(ref), nil
}
