// Package inspection reports on the blocks of a bucket, for operators.
//
// There are three reports. Shards says how blocks, bytes and series spread over shards, and what a
// change of the number of shards moves. Inspector.Block says what one block consists of and what it
// costs a gateway. Bucket says which label sets, gaps, overlaps, partial uploads, marks and broken
// blocks the bucket has. All begin with a catalog.Inventory. Shards and Bucket are pure functions
// of it, and only an Inspector reads the bucket again.
//
// The reports are JSON documents: their fields are the schema that docs/inspect.md promises. Lists
// are sorted and never null. Times are RFC 3339 in UTC, the end of a range is exclusive, sizes are
// in bytes.
//
// # Ownership, locks
//
// A report belongs to its caller. An Inspector may be used by any number of goroutines. It owns the
// manager of index headers, which it keeps in a directory of its caller. progress.mu guards the
// count of finished blocks and is held while a caller's progress function runs.
//
// # Memory
//
// A check of indexes reads checksConcurrency blocks at a time, with a buffer of readSize and the
// largest series entry for each. Gaps and overlaps are bounded in number.
package inspection
