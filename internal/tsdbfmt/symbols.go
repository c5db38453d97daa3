package tsdbfmt

import "io"

// SymbolTable reads the symbol table of an index file from a stream, in bounded memory. Use it as
//
//	for t.Next() { use(t.Symbol()) }
//	if err := t.Err(); err != nil { forget everything }
//
// INVARIANT: nothing it returned may be kept in any form before Next has returned false and Err
// nil: the checksum comes last.
type SymbolTable struct {
	s     section
	sym   []byte
	entry []byte
	pos   int64
}

// NewSymbolTable returns a reader of the symbol table that begins with the next byte of r and lies
// within its next limit bytes. It reads nothing behind the table.
func NewSymbolTable(r io.Reader, limit int64) *SymbolTable {
	t := new(SymbolTable)
	t.s.open("symbol table", r, limit)
	return t
}

// Count returns how many symbols are still to come.
func (t *SymbolTable) Count() uint32 { return t.s.count }

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

// Offset returns where the entry begins, in bytes from the table's first byte. In index format V1
// series refer to symbols by the offset in the file, in V2 and V3 by the number in the table.
func (t *SymbolTable) Offset() int64 { return t.pos }

// Err returns the first error. It is nil at the end only if the checksum was right.
func (t *SymbolTable) Err() error { return t.s.err }
