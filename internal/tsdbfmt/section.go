package tsdbfmt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The symbol table and the postings offset table of an index file have the same frame:
//
//	len <4b> | count <4b> | count entries | crc32c(count, entries) <4b>
//
// len is the number of bytes between itself and the checksum.

const (
	// sectionBuffer is the size of the part of a section in memory, unless one entry is larger.
	sectionBuffer = 64 << 10
	// maxTableString is the maximum length of a symbol, a label name and a label value. A longer
	// length is corruption, and never a reason to allocate memory.
	maxTableString = 64 << 20
)

// section reads the entries of a section from a stream and verifies its checksum.
type section struct {
	what string
	r    io.Reader
	left int64 // unread bytes between those in buf and the checksum
	crc  uint32
	buf  []byte // unconsumed bytes: buf[pos:]
	pos  int
	off  int64 // offset of buf[pos] in the section

	count uint32 // entries not yet read
	err   error
	done  bool
}

// open reads length and count of the section, which lies within the next limit bytes of r.
func (s *section) open(what string, r io.Reader, limit int64) {
	s.what, s.r = what, r
	var b [8]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		s.fail(err)
		return
	}
	n := int64(binary.BigEndian.Uint32(b[:]))
	if n < 4 || n > limit-4-crc32.Size {
		s.fail(fmt.Errorf("%w: length %d in %d bytes", ErrCorrupt, n, limit))
		return
	}
	s.count = binary.BigEndian.Uint32(b[4:])
	s.crc = crc32.Update(0, castagnoli, b[4:])
	s.left = n - 4
	s.off = 8
	// Every entry takes at least one byte.
	if int64(s.count) > s.left {
		s.fail(fmt.Errorf("%w: %d entries in %d bytes", ErrCorrupt, s.count, s.left))
		return
	}
	s.buf = make([]byte, 0, min(s.left, sectionBuffer))
}

func (s *section) fail(err error) {
	// Only the reader's own end counts: an error of the bucket may wrap EOF and is no corruption.
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = fmt.Errorf("%w: the section is cut", ErrCorrupt)
	}
	s.err = fmt.Errorf("%s, at byte %d: %w", s.what, s.off, err)
}

// fill reads more of the section after the unconsumed bytes. It fails at the end of the section.
func (s *section) fill() bool {
	if s.left == 0 {
		s.fail(fmt.Errorf("%w: an entry runs past the section's end", ErrCorrupt))
		return false
	}
	rest := len(s.buf) - s.pos
	switch {
	case s.pos > 0:
		copy(s.buf[:rest], s.buf[s.pos:])
		s.buf, s.pos = s.buf[:rest], 0
	case rest == cap(s.buf):
		// One entry is larger than the buffer. Doubling it is safe, because the bytes for it have
		// arrived.
		s.buf = append(make([]byte, 0, 2*cap(s.buf)), s.buf...)
	}
	n := int(min(s.left, int64(cap(s.buf)-rest)))
	fresh := s.buf[rest : rest+n]
	if _, err := io.ReadFull(s.r, fresh); err != nil {
		s.fail(err)
		return false
	}
	s.crc = crc32.Update(s.crc, castagnoli, fresh)
	s.left -= int64(n)
	s.buf = s.buf[:rest+n]
	return true
}

// more reports whether another entry follows. If not, it has verified the checksum or set the
// error.
func (s *section) more() bool {
	if s.err != nil || s.done {
		return false
	}
	if s.count > 0 {
		s.count--
		return true
	}
	// Bytes after the last entry belong to the section. They are hashed, never interpreted.
	s.off += int64(len(s.buf) - s.pos)
	s.pos = len(s.buf)
	for s.left > 0 {
		if !s.fill() {
			return false
		}
		s.off += int64(len(s.buf) - s.pos)
		s.pos = len(s.buf)
	}
	var b [crc32.Size]byte
	if _, err := io.ReadFull(s.r, b[:]); err != nil {
		s.fail(err)
		return false
	}
	if want := binary.BigEndian.Uint32(b[:]); want != s.crc {
		s.fail(fmt.Errorf("%w: the section has checksum %08x, stored is %08x", ErrChecksum, s.crc,
			want))
		return false
	}
	s.done = true
	return false
}

// next parses the next entry. parse returns the size of the entry at the start of b, or ErrShort if
// b ends within it. next returns false at the section's end and on an error.
func (s *section) next(parse func(b []byte) (n int, err error)) bool {
	if !s.more() {
		return false
	}
	for {
		n, err := parse(s.buf[s.pos:])
		if err == nil {
			s.pos += n
			s.off += int64(n)
			return true
		}
		if !errors.Is(err, ErrShort) {
			s.fail(err)
			return false
		}
		if !s.fill() {
			return false
		}
	}
}

// cutString splits a string with a length prefix off b. It returns ErrShort if b ends within it.
func cutString(b []byte) (str, rest []byte, err error) {
	var n uint64
	var w int
	if len(b) > 0 && b[0] < 0x80 {
		n, w = uint64(b[0]), 1
	} else {
		n, w = binary.Uvarint(b)
	}
	switch {
	case w == 0 && len(b) < binary.MaxVarintLen64:
		return nil, nil, ErrShort
	case w <= 0:
		return nil, nil, fmt.Errorf("%w: the length of a string is not a varint", ErrCorrupt)
	case n > maxTableString:
		return nil, nil, fmt.Errorf("%w: string of %d bytes", ErrCorrupt, n)
	case n > uint64(len(b)-w):
		return nil, nil, ErrShort
	}
	end := w + int(n)
	return b[w:end:end], b[end:], nil
}
