package diskcache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"larder/internal/bytecache"
	"larder/internal/sealed"
)

// The layout of a segment, whose numbers are little-endian:
//
//	0        first line and kind, see sealed.Format, filled up with zeros
//	256      records, each filled up with zeros to a multiple of 256 bytes
//	         entries: identity (32 bytes), offset (4), length of the value (4)
//	-32      trailer: magic (8), number of entries (4), offset of the entries (4),
//	         checksum of the entries and of the trailer so far (4), zeros
//
// A record is magic (4 bytes), length of the value (4), identity (32), checksum of the three and of
// the value (4), zeros (4), value. A segment without a trailer was not sealed.
const (
	unit         = 1 << 8
	unitBits     = 20 // of the offset in a segment, in units, in a location
	slotBits     = 32 - unitBits
	maxSegment   = unit << unitBits // 256 MiB
	maxSlots     = 1 << slotBits
	headerBytes  = unit
	recordHeader = 48
	entryBytes   = 40
	trailerBytes = 32

	recordMagic  = 0x3152444c // LDR1
	trailerMagic = "LDRFOOT1"
)

// MaxBytes is the limit of Options.MaxBytes: 4096 segments of 256 MiB.
const MaxBytes = int64(maxSlots) * maxSegment

// format is that of segments. Files of other versions are removed.
var format = sealed.Format{Kind: "disk-segment", Version: 1}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errNotRecord is the error for bytes that are no whole record.
var errNotRecord = errors.New("no whole record")

// location packs the slot of a segment and the offset of a record in it.
func location(slot uint32, off int64) uint32 { return slot<<unitBits | uint32(off/unit) }

// recordBytes returns the size of a record in the file.
func recordBytes(value int64) int64 { return (recordHeader + value + unit - 1) / unit * unit }

// header returns the first bytes of every segment of a kind.
func header(kind string) []byte {
	b := format.Seal([]byte(kind))
	return append(b, make([]byte, headerBytes-len(b))...)
}

// appendRecord appends the record of a value.
func appendRecord(b []byte, id *bytecache.ID, value []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, recordMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(value)))
	b = append(b, id[:]...)
	sum := crc32.Update(crc32.Checksum(b[start:], castagnoli), castagnoli, value)
	b = binary.LittleEndian.AppendUint32(b, sum)
	b = append(b, 0, 0, 0, 0)
	b = append(b, value...)
	return append(b, make([]byte, start+int(recordBytes(int64(len(value))))-len(b))...)
}

// parseRecord returns the identity and value of the record at the start of b, which they alias.
func parseRecord(b []byte) (id *bytecache.ID, value []byte, err error) {
	if len(b) < recordHeader || binary.LittleEndian.Uint32(b) != recordMagic {
		return nil, nil, errNotRecord
	}
	n := int64(binary.LittleEndian.Uint32(b[4:]))
	if n > int64(len(b)-recordHeader) {
		return nil, nil, errNotRecord
	}
	value = b[recordHeader : recordHeader+n]
	sum := crc32.Update(crc32.Checksum(b[:40], castagnoli), castagnoli, value)
	if sum != binary.LittleEndian.Uint32(b[40:]) {
		return nil, nil, errNotRecord
	}
	return (*bytecache.ID)(b[8:40]), value, nil
}

// entry is one record in the footer of a segment.
type entry struct {
	id     bytecache.ID
	off    uint32
	length uint32
}

// appendFooter appends the entries, which start at off in the file, and the trailer.
func appendFooter(b []byte, entries []entry, off int64) []byte {
	start := len(b)
	for i := range entries {
		b = append(b, entries[i].id[:]...)
		b = binary.LittleEndian.AppendUint32(b, entries[i].off)
		b = binary.LittleEndian.AppendUint32(b, entries[i].length)
	}
	b = append(b, trailerMagic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(entries)))
	b = binary.LittleEndian.AppendUint32(b, uint32(off))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	return append(b, make([]byte, trailerBytes-20)...)
}

// footerBytes returns the size of the footer of n entries.
func footerBytes(n int) int64 { return int64(n)*entryBytes + trailerBytes }

// readFooter returns the entries of a segment of the given size. It returns sealed.ErrDamaged if
// the segment has no valid footer.
func readFooter(r io.ReaderAt, size int64) ([]entry, error) {
	damaged := func(why string) error { return fmt.Errorf("%w: %s", sealed.ErrDamaged, why) }
	var t [trailerBytes]byte
	if size < headerBytes+trailerBytes || size > maxSegment {
		return nil, damaged("size")
	}
	if err := readFull(r, t[:], size-trailerBytes); err != nil {
		return nil, err
	}
	n, off := binary.LittleEndian.Uint32(t[8:]), int64(binary.LittleEndian.Uint32(t[12:]))
	if string(t[:8]) != trailerMagic || off < headerBytes ||
		off+footerBytes(int(n)) != size {
		return nil, damaged("no footer")
	}
	b := make([]byte, int(n)*entryBytes, int(n)*entryBytes+16)
	if err := readFull(r, b, off); err != nil {
		return nil, err
	}
	sum := crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, t[:16])
	if sum != binary.LittleEndian.Uint32(t[16:]) {
		return nil, damaged("checksum of the footer")
	}
	entries := make([]entry, n)
	for i := range entries {
		e := b[i*entryBytes:]
		entries[i] = entry{
			id:  bytecache.ID(e[:32]),
			off: binary.LittleEndian.Uint32(e[32:]), length: binary.LittleEndian.Uint32(e[36:]),
		}
		o, n := int64(entries[i].off), int64(entries[i].length)
		if o%unit != 0 || o+recordHeader+n > off {
			return nil, damaged("an entry outside of the records")
		}
	}
	return entries, nil
}

// scan returns the entries of a segment that was not sealed: the whole records from its start on,
// and where they end. maxValue bounds a value.
func scan(r io.ReaderAt, size, maxValue int64) (entries []entry, end int64, err error) {
	at := int64(headerBytes)
	buf := make([]byte, min(scanBytes+recordBytes(maxValue), max(size-at, 0)))
	for at < size {
		part := buf[:min(int64(len(buf)), size-at)]
		if err := readFull(r, part, at); err != nil {
			return nil, 0, err
		}
		used := int64(0)
		for used < int64(len(part)) {
			id, value, err := parseRecord(part[used:])
			n := recordBytes(int64(len(value)))
			if err != nil || used+n > int64(len(part)) {
				break
			}
			entries = append(entries, entry{*id, uint32(at + used), uint32(len(value))})
			used += n
		}
		if used == 0 {
			break
		}
		at += used
	}
	return entries, at, nil
}

// scanBytes is how much scan reads at once, besides the record that may lie on its end.
const scanBytes = 1 << 20

// readFull is ReadAt without io.EOF for a read that is complete.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// rightHeader reports whether a file is a segment of this kind and version.
func rightHeader(r io.ReaderAt, kind string) (bool, error) {
	b := make([]byte, headerBytes)
	switch err := readFull(r, b, 0); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return false, nil
	case err != nil:
		return false, err
	}
	return bytes.Equal(b, header(kind)), nil
}

// file is a segment's file: an *os.File.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	Sync() error
}

// segment is a file of records.
type segment struct {
	name string
	seq  uint64
	slot uint32
	file file

	// Guarded by Cache.mu.
	size    int64 // bytes that may be read
	readers int
	gone    bool // closed by its last reader
}

const segmentSuffix = ".segment"

// segmentName returns the name of a segment's file. Later segments have larger numbers.
func segmentName(seq uint64) string { return fmt.Sprintf("%016x%s", seq, segmentSuffix) }

// segmentSeq returns the number of a segment's file, and whether it is one.
func segmentSeq(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	seq, err := strconv.ParseUint(digits, 16, 64)
	return seq, err == nil && segmentName(seq) == name
}
