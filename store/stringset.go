package store

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"sync"
	"unsafe"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// stringSetBytes is what a string takes in a set, in the answer and in the message that it is
	// sent as, besides its text there and there: its length, its place in the table (that it is
	// being moved to, too), its string header, its tag.
	stringSetBytes = 48
	// stringSetStep is how many bytes a set reserves at a time.
	stringSetStep = 64 << 10

	// Texts lie in pieces of an arena, of which each is twice as large as the one before, so that a
	// small set is small and no large one is copied as it grows.
	minSetPiece, maxSetPiece = 4 << 10, 256 << 10
	// setPieceShift is where the number of a piece begins in a place: behind an offset in the
	// largest.
	setPieceShift = 18
	maxSetPieces  = 1 << (32 - setPieceShift)
)

// stringSetCost is what a set reserves for a string of n bytes.
func stringSetCost(n int) int64 { return stringSetBytes + 2*int64(n) }

// stringSet collects the strings of an answer, whose bytes are reserved as they add up: a label may
// have millions of values. It refers to nothing that the collector would have to look through.
//
// As long as strings come in ascending order, as a header has them, nothing is looked up; the table
// is made for the first that does not.
type stringSet struct {
	grow func(int64) error
	seed maphash.Seed

	mu     sync.Mutex // guards what follows; held for a segment or some values, never while reading
	free   int64      // bytes that are reserved and not used yet
	pieces [][]byte   // of the arena: each string after its length, in the order in which they came
	last   []byte     // the string that came last
	n      int
	// places in the arena, and one more; nil while strings ascend. The length is a power of two.
	table []uint32
}

func newStringSet(reserved int64, grow func(int64) error) *stringSet {
	return &stringSet{grow: grow, free: reserved, seed: maphash.MakeSeed()}
}

// add adds b, of which nothing is kept. The lock must be held.
func (s *stringSet) add(b []byte) error {
	if s.table == nil {
		switch c := bytes.Compare(b, s.last); {
		case s.n == 0 || c > 0:
			_, err := s.put(b)
			return err
		case c == 0:
			return nil
		}
		s.rehash(1024)
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
		n := max(stringSetStep, -s.free)
		if err := s.grow(n); err != nil {
			return 0, err
		}
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

// rehash makes a table of at least the given length, with room to spare.
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

// sorted returns the strings in order, at most limit of them unless that is 0. They alias the set,
// to which nothing may be added any more.
func (s *stringSet) sorted(limit int) []string {
	if s.n == 0 {
		return nil
	}
	ascending := s.table == nil
	s.table = nil
	out := make([]string, 0, s.n)
	for _, p := range s.pieces {
		for len(p) > 0 {
			n, m := binary.Uvarint(p)
			out = append(out, str(p[m:][:n]))
			p = p[m+int(n):]
		}
	}
	if !ascending {
		slices.Sort(out)
	}
	if limit > 0 && len(out) > limit {
		out = out[:limit:limit]
	}
	return out
}

// str is a string of bytes that do not change any more while it is used.
func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
