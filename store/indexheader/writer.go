package indexheader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"larder/internal/tsdbfmt"
)

// writer lays out a header. Symbols are added first, then names with their values in order. close
// ends the header. It keeps one block and the sparse tables in memory, about a hundredth of the
// file.
type writer struct {
	w    io.Writer
	off  int64
	foot footer

	// The current block: its entries, and the offset of each entry (symbols) or restart (values).
	block   []byte
	offs    []uint16
	entries int

	symBlocks int
	symSparse []byte
	lastRef   uint32 // first reference of the previous block
	firstRef  uint32 // first reference of the current block
	symbol    []byte // the previous symbol

	names     int
	valSparse []byte // finished names
	name      []byte
	nameOpen  bool
	nameCount int
	nameBlks  int
	nameBuf   []byte // sparse entries of the current name
	last      []byte // the previous value
	sep       []byte // separator of the current block
	base      int64  // first list of the current block
	lastBase  int64  // first list of the previous block
	prev      int64  // start of the previous list
}

func newWriter(w io.Writer, f footer) (*writer, error) {
	wr := &writer{w: w, foot: f, block: make([]byte, 0, maxBlock)}
	return wr, wr.write(appendHead(nil))
}

func (w *writer) write(b []byte) error {
	n, err := w.w.Write(b)
	w.off += int64(n)
	if err != nil {
		return &localError{err}
	}
	return nil
}

// addSymbol adds a symbol as the index stores it: length prefix and string. References must ascend.
func (w *writer) addSymbol(ref uint32, entry []byte) error {
	symbol, _, ok := cutBytes(entry)
	if !ok {
		return fmt.Errorf("%w: symbol of reference %d", tsdbfmt.ErrCorrupt, ref)
	}
	if w.foot.symbols > 0 && bytes.Compare(symbol, w.symbol) <= 0 {
		w.foot.disorder = symbolsDisorder
	}
	w.symbol = append(w.symbol[:0], symbol...)
	if w.entries > 0 && len(w.block)+len(entry)+2*(w.entries+1)+2+crc32.Size > maxBlock {
		if err := w.flushSymbols(); err != nil {
			return err
		}
	}
	if w.entries == 0 {
		w.firstRef = ref
	}
	w.offs = append(w.offs, uint16(len(w.block)))
	w.block = append(w.block, entry...)
	w.entries++
	w.foot.symbols++
	return nil
}

func (w *writer) flushSymbols() error {
	if w.entries == 0 {
		return nil
	}
	w.symSparse = binary.AppendUvarint(w.symSparse, uint64(w.firstRef-w.lastRef))
	w.lastRef = w.firstRef
	n, err := w.flushBlock()
	w.symSparse = binary.AppendUvarint(w.symSparse, uint64(n))
	w.symBlocks++
	return err
}

// flushBlock writes the current block: entries, offsets, count, checksum.
func (w *writer) flushBlock() (size int, err error) {
	be := binary.BigEndian
	for _, o := range w.offs {
		w.block = be.AppendUint16(w.block, o)
	}
	w.block = be.AppendUint16(w.block, uint16(w.entries))
	w.block = be.AppendUint32(w.block, crc32.Checksum(w.block, castagnoli))
	size = len(w.block)
	err = w.write(w.block)
	if cap(w.block) > 4*maxBlock {
		w.block = make([]byte, 0, maxBlock) // do not keep the memory of one huge entry
	}
	w.block, w.offs, w.entries = w.block[:0], w.offs[:0], 0
	return size, err
}

// endSymbols ends the symbols. Values follow.
func (w *writer) endSymbols() error {
	err := w.flushSymbols()
	w.foot.valueOff = w.off
	return err
}

// addValue adds an entry of the postings offset table. Entries must be sorted by name and value.
// l.End is used only if ends are stored. Otherwise the lists must ascend.
func (w *writer) addValue(name, value []byte, l List) error {
	if !w.nameOpen || string(name) != string(w.name) {
		if w.nameOpen && string(name) < string(w.name) {
			return fmt.Errorf(
				"%w: postings offset table: label name %q follows %q", tsdbfmt.ErrCorrupt, name,
				w.name,
			)
		}
		if err := w.endName(); err != nil {
			return err
		}
		w.nameOpen = true
		w.name = append(w.name[:0], name...)
		w.last = w.last[:0]
	} else if string(value) <= string(w.last) {
		return fmt.Errorf("%w: postings offset table: value %q of label %q follows %q",
			tsdbfmt.ErrCorrupt, clip(value), w.name, clip(w.last))
	}
	stored := w.foot.lists == listsStored
	switch {
	case stored && !l.plausible(w.foot.indexSize),
		!stored && (l.Off < tsdbfmt.IndexHeaderSize || l.Off > w.foot.indexSize-minList),
		!stored && w.foot.values > 0 && l.Off < w.prev+minList:
		return fmt.Errorf(
			"%w: postings offset table: list of %q=%q at %d", tsdbfmt.ErrCorrupt, w.name,
			clip(value), l.Off,
		)
	}

	if w.foot.all.Off != 0 && w.foot.all.End == 0 {
		w.foot.all.End = l.Off
	}
	if len(name) == 0 && len(value) == 0 {
		w.foot.all.Off = l.Off
		if stored {
			w.foot.all.End = l.End
		}
	}

	shared := 0
	if w.nameCount > 0 {
		shared = commonPrefix(w.last, value)
	}
	// At most three varints surround the suffix. The offset of a restart and the trailer are added.
	need := len(value) - shared + 4*binary.MaxVarintLen64 + 2*(len(w.offs)+1) + 2 + crc32.Size
	if w.entries > 0 && (len(w.block)+need > maxBlock || w.entries == maxBlockEntries) {
		if err := w.flushValues(); err != nil {
			return err
		}
	}
	if w.entries == 0 {
		w.base = l.Off
		w.sep = w.sep[:0]
		if w.nameCount > 0 {
			// The shortest string that sorts after the previous block and not after this one. value
			// is longer than the prefix that it shares with the previous value, because it is
			// larger.
			w.sep = append(w.sep, value[:shared+1]...)
		}
	}
	from := w.prev
	if w.entries%restartInterval == 0 {
		w.offs = append(w.offs, uint16(len(w.block)))
		shared, from = 0, w.base
	}
	w.block = binary.AppendUvarint(w.block, uint64(shared))
	w.block = binary.AppendUvarint(w.block, uint64(len(value)-shared))
	w.block = append(w.block, value[shared:]...)
	if stored {
		w.block = binary.AppendUvarint(w.block, uint64(l.Off))
		w.block = binary.AppendUvarint(w.block, uint64(l.End-l.Off))
	} else {
		w.block = binary.AppendUvarint(w.block, uint64(l.Off-from))
	}
	w.entries++
	w.nameCount++
	w.foot.values++
	w.prev = l.Off
	w.last = append(w.last[:0], value...)
	return nil
}

func (w *writer) flushValues() error {
	if w.entries == 0 {
		return nil
	}
	n, err := w.flushBlock()
	w.nameBuf = binary.AppendUvarint(w.nameBuf, uint64(len(w.sep)))
	w.nameBuf = append(w.nameBuf, w.sep...)
	w.nameBuf = binary.AppendUvarint(w.nameBuf, uint64(n))
	if w.foot.lists == listsDerived {
		w.nameBuf = binary.AppendUvarint(w.nameBuf, uint64(w.base-w.lastBase))
		w.lastBase = w.base
	}
	w.nameBlks++
	return err
}

func (w *writer) endName() error {
	if !w.nameOpen {
		return nil
	}
	if err := w.flushValues(); err != nil {
		return err
	}
	w.valSparse = binary.AppendUvarint(w.valSparse, uint64(len(w.name)))
	w.valSparse = append(w.valSparse, w.name...)
	w.valSparse = binary.AppendUvarint(w.valSparse, uint64(w.nameCount))
	w.valSparse = binary.AppendUvarint(w.valSparse, uint64(w.nameBlks))
	w.valSparse = append(w.valSparse, w.nameBuf...)
	w.names++
	w.nameOpen, w.nameCount, w.nameBlks, w.nameBuf = false, 0, 0, w.nameBuf[:0]
	return nil
}

// close writes the sparse tables and the footer.
func (w *writer) close() error {
	if err := w.endName(); err != nil {
		return err
	}
	if w.foot.lists == listsDerived && w.foot.values > 0 {
		w.foot.listsEnd = w.foot.toc.SectionEnd(w.prev, w.foot.indexSize)
		if w.foot.listsEnd < w.prev+minList {
			return fmt.Errorf(
				"%w: postings offset table: the last list, at %d, does not fit before %d",
				tsdbfmt.ErrCorrupt, w.prev, w.foot.listsEnd,
			)
		}
		if w.foot.all.Off != 0 && w.foot.all.End == 0 {
			w.foot.all.End = w.foot.listsEnd
		}
	}
	w.foot.symSparse = w.off
	if err := w.writeSparse(w.symBlocks, w.symSparse); err != nil {
		return err
	}
	w.foot.valSparse = w.off
	if err := w.writeSparse(w.names, w.valSparse); err != nil {
		return err
	}
	w.foot.size = w.off + footerSize
	return w.write(w.foot.append(nil))
}

func (w *writer) writeSparse(count int, body []byte) error {
	b := binary.AppendUvarint(nil, uint64(count))
	b = append(b, body...)
	return w.write(binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)))
}

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// clip shortens a value for an error text.
func clip(b []byte) []byte { return b[:min(len(b), 64)] }
