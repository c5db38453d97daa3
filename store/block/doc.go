// Package block reads one block of the bucket: matchers become postings, postings become segments, chunk references become chunk records.
//
// # Postings
//
// Block.Plan groups matchers by label name, finds the byte ranges of their posting lists in the index header, and reads those that are worth
// it in one go. Matchers whose lists would cost more bytes than looking at the series that are left stay pending.
//
// # Segments
//
// A Stream reads the series entries of a plan's postings run by run, one run ahead, and turns them into Segments: finished label bytes with
// external labels in place, in the order of the final label sets (order.go has the theorem), and references to the chunks in range,
// with a bound of each record's length.
//
// # Chunk records
//
// A ChunkReader fetches the records of many references together. It does not verify them: whoever copies them does, while the bytes are
// hot, and asks for Reread of a record that fails.
//
// # Who owns which bytes
//
// Pages are immutable and garbage collected; records and decoded entries alias them. Segments are immutable once returned. Everything else
// in a Stream (symbols, raw series, scratch) is its own and reused from segment to segment. A Block holds no bytes: headers are borrowed from
// the manager for the life of a Plan.
//
// # Locks
//
// Block.mu guards the list of chunk files and the matcher sets that came to nothing. It is never held while reading. Streams, plans and
// chunk readers belong to one goroutine.
package block
