// Package tsdbfmt reads the encodings of a Prometheus TSDB block, and of what Thanos adds to them:
// the sections of an index file, series entries, posting lists, chunk records, aggregate chunks. It
// is the only package that knows them.
//
// Every function takes bytes that were already read and says what they mean. None reads a file,
// starts a goroutine, takes a lock or keeps state. SymbolTable and OffsetTable read theirs from a
// stream, in bounded memory: those tables may have gigabytes.
//
// # Ownership of bytes
//
// A slice that a function returns aliases its input unless the function is an AppendX, which
// appends to dst and returns it. The input is never written to. Callers hand in immutable pages, so
// an alias is good for as long as it is referenced.
//
// # Trust
//
// What carries a checksum is verified before any other byte of it is interpreted, each time it is
// decoded. That says the bytes are those that were written, not that they make sense: every length,
// count and offset is checked against the bytes at hand even so, and a decoder returns ErrCorrupt
// instead of panicking or reserving memory that the input cannot fill.
package tsdbfmt
