package store

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"unsafe"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/store/storepb"
)

const (
	// stringSetBytes is what a string takes in a set and in the list that the set becomes, besides
	// its bytes in both: its length, its places in the old and the new table, its place while they
	// are sorted, its tag.
	stringSetBytes = 48
	// stringSetStep is how many bytes a set reserves at a time, firstSetStep how many at first.
	stringSetStep, firstSetStep = 64 << 10, 8 << 10

	// Strings lie in pieces of an arena. Each piece is twice as large as the one before, up to a
	// maximum, so that a small set is small and a large set is never copied.
	minSetPiece, maxSetPiece = 256, 256 << 10
	// minSetTable is how many places the table has at first.
	minSetTable = 16
	// A place is the number of a piece, shifted by setPieceShift, and an offset in the piece.
	setPieceShift = 18
	maxSetPieces  = 1 << (32 - setPieceShift)
)

// stringSetCost is what a set reserves for a string of n bytes.
func stringSetCost(n int) int64 { return stringSetBytes + 2*int64(n) }

// stringSet collects strings that may come in any order and repeatedly. It reserves bytes as they
// add up, because a label may have millions of values. It has no pointers to strings, which spares
// the garbage collector. One goroutine uses it at a time.
//
// As long as strings come in order, no string is looked up. The table is made for the first one
// that does not.
type stringSet struct {
	bytes    *labelBytes
	seed     maphash.Seed
	reserved int64    // bytes in total
	free     int64    // of them unused
	pieces   [][]byte // of the arena: each string after its length, in the order in which they came
	last     []byte   // the string that came last
	n        int
	// table holds places in the arena, plus one. It is nil while strings come in order. Its length
	// is a power of two.
	table []uint32
}

func newStringSet(bytes *labelBytes) *stringSet {
	return &stringSet{bytes: bytes, seed: maphash.MakeSeed()}
}

// add adds a copy of b.
func (s *stringSet) add(b []byte) error {
	if s.table == nil {
		switch c := bytes.Compare(b, s.last); {
		case s.n == 0 || c > 0:
			_, err := s.put(b)
			return err
		case c == 0:
			return nil
		}
		s.rehash(minSetTable)
	}
	at := s.find(b)
	if s.table[at] != 0 {
		return nil
	}
	place, err := s.put(b)
	if err != nil {
		return err
	}
	if s.table[at] = place + 1; 4*s.n > 3*len(s.table) {
		s.rehash(2 * len(s.table))
	}
	return nil
}

// put appends b to the arena and returns its place.
func (s *stringSet) put(b []byte) (place uint32, err error) {
	if s.free -= stringSetCost(len(b)); s.free < 0 {
		n := max(min(max(s.reserved, firstSetStep), stringSetStep), -s.free)
		if err := s.bytes.Reserve(n); err != nil {
			return 0, err
		}
		s.reserved += n
		s.free += n
	}
	need := len(b) + binary.MaxVarintLen32
	k := len(s.pieces) - 1
	if k < 0 || cap(s.pieces[k])-len(s.pieces[k]) < need {
		size := minSetPiece
		if k >= 0 {
			size = min(2*cap(s.pieces[k]), maxSetPiece)
		}
		if k++; k == maxSetPieces {
			return 0, status.Errorf(
				codes.ResourceExhausted, "an answer of more than %d GiB of strings",
				maxSetPieces*maxSetPiece>>30,
			)
		}
		s.pieces = append(s.pieces, make([]byte, 0, max(size, need)))
	}
	p := s.pieces[k]
	place = uint32(k)<<setPieceShift | uint32(len(p))
	p = binary.AppendUvarint(p, uint64(len(b)))
	p = append(p, b...)
	s.pieces[k], s.last = p, p[len(p)-len(b):]
	s.n++
	return place, nil
}

// at returns the string at a place.
func (s *stringSet) at(place uint32) []byte {
	p := s.pieces[place>>setPieceShift][place&(1<<setPieceShift-1):]
	n, k := binary.Uvarint(p)
	return p[k:][:n]
}

// find returns where in the table b is, or where it belongs.
func (s *stringSet) find(b []byte) int {
	mask := len(s.table) - 1
	for at := int(maphash.Bytes(s.seed, b)) & mask; ; at = (at + 1) & mask {
		if place := s.table[at]; place == 0 || string(s.at(place-1)) == string(b) {
			return at
		}
	}
}

// rehash makes a table of at least the given length, with free entries.
func (s *stringSet) rehash(size int) {
	for 4*s.n > 3*size {
		size *= 2
	}
	s.table = make([]uint32, size)
	for k, p := range s.pieces {
		for off := 0; off < len(p); {
			n, m := binary.Uvarint(p[off:])
			s.table[s.find(p[off+m:][:n])] = (uint32(k)<<setPieceShift | uint32(off)) + 1
			off += m + int(n)
		}
	}
}

// list returns the strings in order. Its bytes are part of those that the set has reserved. Nothing
// may be added afterwards.
func (s *stringSet) list() stringList {
	if s.n == 0 {
		return nil
	}
	size := s.n // for the tags
	for _, p := range s.pieces {
		size += len(p)
	}
	out := make(stringList, 0, size)
	if s.table == nil { // they came in order
		s.each(func(b []byte) { out = storepb.AppendString(out, b) })
		return out
	}
	s.table = nil
	sorted := make([]string, 0, s.n)
	s.each(func(b []byte) { sorted = append(sorted, unsafe.String(unsafe.SliceData(b), len(b))) })
	slices.Sort(sorted)
	for _, v := range sorted {
		out = storepb.AppendString(out, v)
	}
	return out
}

// moveTo adds the strings to another set. Nothing may be added to this one afterwards.
func (s *stringSet) moveTo(other *stringSet) (err error) {
	s.each(func(b []byte) {
		if err == nil {
			err = other.add(b)
		}
	})
	s.bytes.Release(s.reserved)
	s.reserved, s.pieces, s.n = 0, nil, 0
	return err
}

// finish returns the list, for which alone bytes stay reserved.
func (s *stringSet) finish() stringList {
	l := s.list()
	s.bytes.Release(s.reserved - int64(cap(l)))
	return l
}

// each calls f for the strings in the order in which they came.
func (s *stringSet) each(f func([]byte)) {
	for _, p := range s.pieces {
		for len(p) > 0 {
			n, m := binary.Uvarint(p)
			f(p[m:][:n])
			p = p[m+int(n):]
		}
	}
}
