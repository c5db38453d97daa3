package tsdbfmt

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// An entry of the postings offset table is
//
//	2 <1b> | len(name) <uvarint> | name | len(value) <uvarint> | value |
//	  offset of the posting list <uvarint>
//
// The entry of the list of all series has an empty name and an empty value. In V2 and V3 entries
// are sorted by name and value and their offsets ascend; in V1 neither is guaranteed.

// OffsetTable reads the postings offset table of an index file from a stream, in bounded memory.
// Use it like SymbolTable.
//
// INVARIANT: keep nothing that it returned, in any form, before Next has returned false and Err
// nil, because the checksum comes last.
type OffsetTable struct {
	s           section
	name, value []byte
	list        int64
}

// NewOffsetTable returns a reader of the table that starts with the next byte of r and ends within
// limit bytes. It reads nothing after the table.
func NewOffsetTable(r io.Reader, limit int64) *OffsetTable {
	t := new(OffsetTable)
	t.s.open("postings offset table", r, limit)
	return t
}

// Next advances to the next entry. It returns false at the end and on an error.
func (t *OffsetTable) Next() bool { return t.s.next(t.parse) }

// Name returns the label name. It is valid until the next call of Next.
func (t *OffsetTable) Name() []byte { return t.name }

// Value returns the label value. It is valid until the next call of Next.
func (t *OffsetTable) Value() []byte { return t.value }

// List returns the byte offset of the posting list in the index file. It is not checked against the
// file's size.
func (t *OffsetTable) List() int64 { return t.list }

// Err returns the first error. At the end it is nil only if the checksum matched.
func (t *OffsetTable) Err() error { return t.s.err }

func (t *OffsetTable) parse(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, ErrShort
	}
	if b[0] != 2 {
		return 0, fmt.Errorf("%w: an entry has %d keys", ErrCorrupt, b[0])
	}
	name, rest, err := cutString(b[1:])
	if err != nil {
		return 0, err
	}
	value, rest, err := cutString(rest)
	if err != nil {
		return 0, err
	}
	off, w := binary.Uvarint(rest)
	switch {
	case w == 0 && len(rest) < binary.MaxVarintLen64:
		return 0, ErrShort
	case w <= 0 || off > math.MaxInt64:
		return 0, fmt.Errorf("%w: the offset of a list", ErrCorrupt)
	}
	t.name, t.value, t.list = name, value, int64(off)
	return len(b) - len(rest) + w, nil
}
