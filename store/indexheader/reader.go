package indexheader

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strings"
	"sync"
	"sync/atomic"
)

// storage has the bytes of a header: a file, or memory.
type storage interface {
	io.ReaderAt
	io.Closer
	// Size is the number of bytes. heap is the number of them in memory.
	Size() int64
	heap() int64
}

// lookups has what the readers of a process share: buffers, the cache of blocks, counters.
type lookups struct {
	pool  sync.Pool   // of *scratch
	cache *blockCache // nil: none

	reads, hits, bytesRead atomic.Int64
}

func newLookups(cacheBytes int64) *lookups {
	l := new(lookups)
	if cacheBytes > 0 {
		l.cache = &blockCache{max: cacheBytes}
	}
	return l
}

// scratch has the buffers of one look-up.
type scratch struct {
	buf    []byte
	cursor valueCursor

	reads, hits, bytes int64
}

func (l *lookups) get() *scratch {
	if s, ok := l.pool.Get().(*scratch); ok {
		return s
	}
	return &scratch{buf: make([]byte, maxBlock)}
}

func (l *lookups) put(s *scratch) {
	l.reads.Add(s.reads)
	l.hits.Add(s.hits)
	l.bytesRead.Add(s.bytes)
	s.reads, s.hits, s.bytes = 0, 0, 0
	if cap(s.buf) > 2*maxBlock || cap(s.cursor.key) > 2*maxBlock {
		return // a huge entry has enlarged it
	}
	s.cursor = valueCursor{key: s.cursor.key[:0]} // without a reference to a block
	l.pool.Put(s)
}

// reader is an open header. The footer and the sparse tables are in memory, and blocks are read on
// demand. It is immutable except for its cache slots.
type reader struct {
	footer
	st   storage
	look *lookups
	heap int64

	// Symbol block i has the references from symFirst[i] to below symFirst[i+1] and lies at
	// [symOff[i], symOff[i+1]).
	symFirst []uint32
	symOff   []int64

	names   []string // sorted; slices of one string
	visible []string // names without ""
	counts  []uint32 // values, by name
	first   []uint32 // first value block, by name, and one more

	// Value block i lies at [valOff[i], valOff[i+1]). Its values are at least sep(i), and those of
	// the previous block of the same name are less. Its lists lie at [lists[i], lists[i+1]), if
	// ends are derived.
	valOff []int64
	sepEnd []uint32
	seps   string
	lists  []int64

	slots []cacheSlot // symbol blocks, then value blocks; nil without a cache
}

// tailGuess is the number of bytes that are read when a file is opened. They include the footer
// and, up to about 100,000 values, the sparse tables.
const tailGuess = 32 << 10

// open reads the footer and the sparse tables. It does not close st after an error.
func open(st storage, want Source, look *lookups) (*reader, error) {
	r := &reader{st: st, look: look}
	damaged := func(what string, off int64, err error) (*reader, error) {
		if errors.Is(err, errStale) {
			return nil, err
		}
		return nil, &damageError{id: want.ID, what: what, off: off, err: err}
	}
	size := st.Size()
	off := max(0, size-tailGuess)
	tail := make([]byte, size-off)
	if err := readFull(st, tail, off); err != nil {
		return damaged("tail", off, err)
	}
	foot, err := parseFooter(tail, size)
	if err != nil {
		return damaged("footer", size-footerSize, err)
	}
	r.footer = foot
	if foot.id != want.ID || want.Content != 0 && foot.content != want.Content ||
		want.IndexSize != 0 && foot.indexSize != want.IndexSize {
		return nil, fmt.Errorf(
			"%w: of block %s with content %016x, index of %d bytes", errStale, foot.id,
			foot.content, foot.indexSize,
		)
	}
	if foot.symSparse < off {
		more := make([]byte, off-foot.symSparse, size-foot.symSparse)
		if err := readFull(st, more, foot.symSparse); err != nil {
			return damaged("sparse tables", foot.symSparse, err)
		}
		tail, off = append(more, tail...), foot.symSparse
	}
	sym := tail[foot.symSparse-off : foot.valSparse-off]
	val := tail[foot.valSparse-off : size-footerSize-off]
	if err := r.parseSymbols(sym); err != nil {
		return damaged("sparse table of symbols", foot.symSparse, err)
	}
	if err := r.parseValues(val); err != nil {
		return damaged("sparse table of values", foot.valSparse, err)
	}
	if look.cache != nil && st.heap() == 0 {
		r.slots = make([]cacheSlot, r.blocks())
	}
	r.heap = st.heap() + int64(
		len(r.seps)+4*cap(r.symFirst)+8*cap(r.symOff)+4*cap(r.counts)+4*cap(r.first)+
			8*cap(
				r.valOff,
			)+4*cap(r.sepEnd)+8*cap(r.lists)+16*cap(r.names)+slotBytes*cap(r.slots),
	) + readerOverhead
	for _, n := range r.names {
		r.heap += int64(len(n))
	}
	return r, nil
}

// slotBytes is the size of a cacheSlot.
const slotBytes = 16

// blocks returns the number of symbol and value blocks.
func (r *reader) blocks() int { return len(r.symFirst) + len(r.lists) - 1 }

// readerOverhead is the approximate cost in bytes of an open header besides its tables.
const readerOverhead = 1 << 10

func readFull(st storage, b []byte, off int64) error {
	if n, err := st.ReadAt(b, off); n < len(b) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

// sparse verifies a sparse table and returns its entry count and its entries.
func sparse(b []byte) (count int, rest []byte, err error) {
	body, err := verifyBlock(b)
	if err != nil {
		return 0, nil, err
	}
	n, rest, ok := cutUvarint(body)
	// Every entry has at least two bytes, so the file's size bounds the allocation for them.
	if !ok || n > uint64(len(rest))/2 {
		return 0, nil, errCorrupt
	}
	return int(n), rest, nil
}

func (r *reader) parseSymbols(b []byte) error {
	n, b, err := sparse(b)
	if err != nil {
		return err
	}
	r.symFirst = make([]uint32, 0, n)
	r.symOff = make([]int64, 0, n+1)
	ref, off := uint64(0), int64(headSize)
	for i := range n {
		d, rest, ok := cutUvarint(b)
		size, rest, ok2 := cutUvarint(rest)
		if !ok || !ok2 || i > 0 && d == 0 || size > uint64(r.valueOff-off) {
			return fmt.Errorf("%w: block %d", errCorrupt, i)
		}
		if d > math.MaxUint32 || ref+d > math.MaxUint32 {
			return fmt.Errorf("%w: block %d", errCorrupt, i)
		}
		ref += d
		r.symFirst = append(r.symFirst, uint32(ref))
		r.symOff = append(r.symOff, off)
		off += int64(size)
		b = rest
	}
	if off != r.valueOff || len(b) != 0 {
		return fmt.Errorf("%w: symbol blocks end at %d instead of %d", errCorrupt, off, r.valueOff)
	}
	r.symOff = append(r.symOff, off)
	return nil
}

func (r *reader) parseValues(b []byte) error {
	n, b, err := sparse(b)
	if err != nil {
		return err
	}
	stored := r.footer.lists == listsStored
	r.counts = make([]uint32, 0, n)
	r.first = make([]uint32, 0, n+1)
	var names strings.Builder
	var seps strings.Builder
	nameEnd := make([]int, 0, n)
	off, list, total := r.valueOff, uint64(0), uint64(0)
	for i := range n {
		name, rest, ok1 := cutBytes(b)
		count, rest, ok2 := cutUvarint(rest)
		blocks, rest, ok3 := cutUvarint(rest)
		// Every block has at least two bytes here and one value.
		if !ok1 || !ok2 || !ok3 || blocks == 0 || blocks > uint64(len(rest)) || count < blocks ||
			count > math.MaxUint32 {
			return fmt.Errorf("%w: label name %d", errCorrupt, i)
		}
		b = rest
		names.Write(name)
		nameEnd = append(nameEnd, names.Len())
		r.counts = append(r.counts, uint32(count))
		r.first = append(r.first, uint32(len(r.valOff)))
		total += count
		begin := off
		for j := range blocks {
			sep, rest, ok1 := cutBytes(b)
			size, rest, ok2 := cutUvarint(rest)
			var d uint64
			ok3 := true
			if !stored {
				d, rest, ok3 = cutUvarint(rest)
			}
			if !ok1 || !ok2 || !ok3 || size > uint64(r.symSparse-off) || d > uint64(r.indexSize) ||
				list+d > uint64(r.indexSize) {
				return fmt.Errorf("%w: block %d of label %q", errCorrupt, j, name)
			}
			b = rest
			seps.Write(sep)
			if seps.Len() > math.MaxUint32 {
				return errCorrupt
			}
			list += d
			r.valOff = append(r.valOff, off)
			r.sepEnd = append(r.sepEnd, uint32(seps.Len()))
			r.lists = append(r.lists, int64(list))
			off += int64(size)
		}
		// Every value uses some bytes of its blocks, so the file's size bounds the allocation for a
		// label's lists too.
		if count > uint64(off-begin) {
			return fmt.Errorf(
				"%w: label %q has %d values in %d bytes", errCorrupt, name, count, off-begin,
			)
		}
	}
	if off != r.symSparse || len(b) != 0 || total != uint64(r.values) {
		return fmt.Errorf(
			"%w: value blocks end at %d instead of %d, with %d of %d values", errCorrupt, off,
			r.symSparse, total, r.values,
		)
	}
	r.first = append(r.first, uint32(len(r.valOff)))
	r.valOff = append(r.valOff, off)
	r.lists = append(r.lists, r.listsEnd)
	r.seps = seps.String()

	all := names.String()
	r.names = make([]string, n)
	start := 0
	for i, end := range nameEnd {
		r.names[i] = all[start:end]
		start = end
		if i > 0 && r.names[i] <= r.names[i-1] {
			return fmt.Errorf("%w: label name %q follows %q", errCorrupt, r.names[i], r.names[i-1])
		}
	}
	r.visible = r.names
	if n > 0 && r.names[0] == "" {
		r.visible = r.names[1:]
	}
	return nil
}

// sep returns the separator of value block i.
func (r *reader) sep(i uint32) string {
	lo := uint32(0)
	if i > 0 {
		lo = r.sepEnd[i-1]
	}
	return r.seps[lo:r.sepEnd[i]]
}

// close releases the storage. No look-up may run.
func (r *reader) close() error {
	if r.slots != nil {
		r.look.cache.drop(r.slots)
	}
	return r.st.Close()
}

// block returns the verified bytes of a block without their checksum. They are valid until sc is
// used for the next block. admit says that the block is likely to be read again.
func (r *reader) block(sc *scratch, slot int, off, end int64, admit bool) ([]byte, error) {
	var s *cacheSlot
	if r.slots != nil {
		s = &r.slots[slot]
		if b := s.block.Load(); b != nil {
			if !b.fresh.Load() {
				b.fresh.Store(true)
			}
			sc.hits++
			return b.data, nil
		}
	}
	n := int(end - off)
	if n < crc32.Size {
		return nil, r.damaged(off, errCorrupt)
	}
	keep := s != nil && admit && s.seen.Swap(true)
	var b []byte
	if keep {
		b = make([]byte, n)
	} else {
		if cap(sc.buf) < n {
			sc.buf = make([]byte, n)
		}
		b = sc.buf[:n]
	}
	if err := readFull(r.st, b, off); err != nil {
		return nil, r.damaged(off, err)
	}
	sc.reads++
	sc.bytes += int64(n)
	body, err := verifyBlock(b)
	if err != nil {
		return nil, r.damaged(off, err)
	}
	if keep {
		r.look.cache.add(s, body)
	}
	return body, nil
}

func (r *reader) damaged(off int64, err error) error {
	return &damageError{r: r, id: r.id, what: "block", off: off, err: err}
}
