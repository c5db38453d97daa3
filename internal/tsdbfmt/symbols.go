package tsdbfmt

import "io"

// SymbolTable reads the symbol table of an index file from a stream, in bounded memory. Use it like
// this:
//
//	for t.Next() { use(t.Symbol()) }
//	if err := t.Err(); err != nil { discard everything }
//
// INVARIANT: keep nothing that it returned, in any form, before Next has returned false and Err
// nil, because the checksum comes last.
type SymbolTable struct {
	s     section
	sym   []byte
	entry []byte
	pos   int64
}

// NewSymbolTable returns a reader of the symbol table that starts with the next byte of r and ends
// within limit bytes. It reads nothing after the table.
func NewSymbolTable(r io.Reader, limit int64) *SymbolTable {
	t := new(SymbolTable)
	t.s.open("symbol table", r, limit)
	return t
}

// Next advances to the next symbol. It returns false at the end and on an error.
func (t *SymbolTable) Next() bool {
	t.pos = t.s.off
	return t.s.next(t.parse)
}

func (t *SymbolTable) parse(b []byte) (n int, err error) {
	sym, rest, err := cutString(b)
	if err != nil {
		return 0, err
	}
	n = len(b) - len(rest)
	t.sym, t.entry = sym, b[:n:n]
	return n, nil
}

// Symbol returns the symbol. It is valid until the next call of Next.
func (t *SymbolTable) Symbol() []byte { return t.sym }

// Entry returns the symbol with its length prefix, as stored. It is valid until the next call of
// Next.
func (t *SymbolTable) Entry() []byte { return t.entry }

// Offset returns the offset of the entry in bytes from the start of the table. Series refer to
// symbols by the offset in the file in index format V1, and by the number in the table in V2 and
// V3.
func (t *SymbolTable) Offset() int64 { return t.pos }

// Err returns the first error. At the end it is nil only if the checksum matched.
func (t *SymbolTable) Err() error { return t.s.err }
