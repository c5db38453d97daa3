package indexheader

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/oklog/ulid/v2"

	"larder/internal/tsdbfmt"
)

// docs/format.md draws the layout of a header file. A golden file keeps both in agreement.

const (
	// formatVersion is increased with every change of the layout. A file of another version is
	// rebuilt.
	formatVersion = 3

	magic      = "larderIH"
	headSize   = 16
	footerSize = 176
	// tailSize is the size of the end of the footer that is the same in all versions: format
	// version, checksum, magic.
	tailSize = 16

	// maxBlock is the size of a block in bytes, checksum included. Only a block of one entry may be
	// larger.
	maxBlock = 16 << 10
	// restartInterval is the number of entries of a value block between two that are stored without
	// a shared prefix.
	restartInterval = 16
	// maxBlockEntries is the largest entry count of a block.
	maxBlockEntries = 1<<16 - 1
)

// How a value block states the ends of posting lists.
const (
	listsDerived = 0 // an entry's list ends at the start of the next entry's list
	listsStored  = 1 // every entry has its list's end: lists have no order (index format V1)
)

// Whether the index's symbol table is sorted. Only then do references have the order of their
// symbols.
const (
	symbolsAscend   = 0 // every symbol is larger than the one before
	symbolsDisorder = 1
)

// footer is the fixed part at the end of a header file.
type footer struct {
	id        ulid.ULID
	content   uint64
	indexSize int64
	lists     byte
	disorder  byte // symbolsAscend or symbolsDisorder
	toc       tsdbfmt.TOC
	all       List
	symbols   int64 // number of symbols
	values    int64 // number of entries of the postings offset table
	valueOff  int64 // start of the value blocks; the symbol blocks start at headSize
	symSparse int64 // start of the symbols' sparse table
	valSparse int64 // start of the values' sparse table, which ends at the footer
	listsEnd  int64 // end of the last posting list, if ends are derived
	size      int64 // of the file
}

func appendHead(dst []byte) []byte {
	dst = append(dst, magic...)
	dst = binary.BigEndian.AppendUint32(dst, formatVersion)
	return binary.BigEndian.AppendUint32(dst, 0)
}

func (f *footer) append(dst []byte) []byte {
	be := binary.BigEndian
	start := len(dst)
	dst = append(dst, f.id[:]...)
	dst = be.AppendUint64(dst, f.content)
	dst = be.AppendUint64(dst, uint64(f.indexSize))
	dst = append(dst, byte(f.toc.Version), f.lists, f.disorder, 0, 0, 0, 0, 0)
	for _, v := range f.fields() {
		dst = be.AppendUint64(dst, uint64(*v))
	}
	dst = be.AppendUint32(dst, formatVersion)
	dst = be.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
	return append(dst, magic...)
}

// fields returns the footer's 64-bit fields after the versions, in order.
func (f *footer) fields() [15]*int64 {
	return [15]*int64{
		&f.toc.Symbols, &f.toc.Series, &f.toc.LabelIndices, &f.toc.LabelIndicesTable,
		&f.toc.Postings, &f.toc.PostingsTable, &f.all.Off, &f.all.End, &f.symbols, &f.values,
		&f.valueOff, &f.symSparse, &f.valSparse, &f.listsEnd, &f.size,
	}
}

// parseFooter reads the footer from the last bytes of a file of size bytes. It returns errStale for
// another format version.
func parseFooter(b []byte, size int64) (footer, error) {
	var f footer
	if len(b) < tailSize || string(b[len(b)-len(magic):]) != magic {
		return f, fmt.Errorf("%w: no magic at the end", errCorrupt)
	}
	be := binary.BigEndian
	if v := be.Uint32(b[len(b)-tailSize:]); v != formatVersion {
		return f, fmt.Errorf("%w: format version %d", errStale, v)
	}
	if len(b) < footerSize || size < headSize+footerSize {
		return f, fmt.Errorf("%w: a file of %d bytes", errCorrupt, size)
	}
	b = b[len(b)-footerSize:]
	sum := footerSize - len(magic) - crc32.Size
	if crc32.Checksum(b[:sum], castagnoli) != be.Uint32(b[sum:]) {
		return f, errChecksum
	}
	copy(f.id[:], b)
	f.content = be.Uint64(b[16:])
	f.indexSize = int64(be.Uint64(b[24:]))
	f.toc.Version = int(b[32])
	f.lists, f.disorder = b[33], b[34]
	for i, v := range f.fields() {
		*v = int64(be.Uint64(b[40+8*i:]))
	}
	// INVARIANT: after this check the four regions lie in the file in this order, and the file's
	// size bounds all allocations.
	switch {
	case f.size != size:
		return f, fmt.Errorf(
			"%w: the footer states %d bytes, the file has %d", errCorrupt, f.size, size,
		)
	case f.toc.Version < 1 || f.toc.Version > 3 || f.lists > listsStored ||
		f.disorder > symbolsDisorder:
		return f, fmt.Errorf(
			"%w: index version %d, lists %d, symbols %d", errCorrupt, f.toc.Version, f.lists,
			f.disorder,
		)
	case f.valueOff < headSize || f.symSparse < f.valueOff ||
		f.valSparse < f.symSparse+crc32.Size ||
		size-footerSize < f.valSparse+crc32.Size:
		return f, fmt.Errorf(
			"%w: regions at %d, %d, %d of %d bytes", errCorrupt, f.valueOff, f.symSparse,
			f.valSparse, size,
		)
	case f.indexSize < 0 || f.symbols < 0 || f.values < 0 || !f.all.plausible(f.indexSize) &&
		f.all != (List{}):
		return f, fmt.Errorf("%w: footer", errCorrupt)
	}
	return f, nil
}

// minList is the size of a posting list without postings: length, count, checksum.
const minList = 12

// plausible reports whether a posting list can lie at l in an index of size bytes.
func (l List) plausible(size int64) bool {
	return l.Off >= tsdbfmt.IndexHeaderSize && l.Off <= size-minList && l.End >= l.Off+minList &&
		l.End <= size
}

// castagnoli is the polynomial of all checksums of a header, same as in a block.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// cutUvarint splits a uvarint off b. ok is false if b does not start with one.
func cutUvarint(b []byte) (v uint64, rest []byte, ok bool) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:], true
	}
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

// cutBytes splits a string with its length prefix off b.
func cutBytes(b []byte) (s, rest []byte, ok bool) {
	n, rest, ok := cutUvarint(b)
	if !ok || n > uint64(len(rest)) {
		return nil, nil, false
	}
	return rest[:n:n], rest[n:], true
}
