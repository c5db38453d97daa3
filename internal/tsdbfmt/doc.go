// Package tsdbfmt decodes the encodings of a Prometheus TSDB block and of Thanos's additions to
// them: sections of an index file, series entries, posting lists, chunk records and aggregate
// chunks. It is the only package that knows these encodings. Every function takes bytes that were
// already read, and returns their meaning. None reads a file, starts a goroutine, takes a lock or
// keeps state. SymbolTable and OffsetTable read from a stream in bounded memory, because those
// tables may have gigabytes.
//
// # Ownership of bytes
//
// A returned slice aliases the input, except from an AppendX function, which appends to dst and
// returns it. The input is never written to. Callers pass immutable pages, so an alias stays valid
// while it is referenced.
//
// # Trust
//
// Checksums are verified before any other byte of their data is interpreted, each time it is
// decoded. A correct checksum proves that the bytes are those that were written, not that they are
// valid. Therefore every length, count and offset is also checked against the bytes at hand. A
// decoder returns ErrCorrupt; it never panics, and never allocates memory that the input cannot
// fill.
package tsdbfmt
