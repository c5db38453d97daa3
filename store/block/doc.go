// Package block reads one block of the bucket: matchers become postings, postings become segments,
// chunk references become chunk records.
//
// # Postings
//
// Block.Plan groups matchers by label name, finds the byte ranges of their posting lists in the
// index header, and reads those that are worth it in one go. Matchers whose lists would cost more
// bytes than looking at the series that are left stay pending. Of names with very many selected
// values only marks are kept, a bit each, and their lists are read some at a time.
//
// What this takes is shared by the requests that wait for it, and is bounded by Expansions. A
// request asks for leave (PlanOptions.Reserve) to hold what comes of it.
//
// # Segments
//
// A Stream reads the series entries of a plan's postings run by run, one run ahead, and turns them
// into Segments: finished label bytes with external labels in place, in the order of the final
// label sets (order.go has the theorem), and references to the chunks in range, with a bound of
// each record's length. A segment ends at a number of series, of bytes of entries or of bytes of
// labels, whichever comes first. Where the symbols of a segment do not fit together, the last of
// its series are decoded again for the next one.
//
// # Irregular blocks
//
// A stream checks the shape that all of this rests on (shape.go): names ascend, no value is empty,
// series ascend. A block that fails is irregular from then on. Its plans leave no matcher pending,
// its streams normalise labels and sort the series in memory, in several passes if need be
// (sorted.go). So are the streams of blocks that have an external or removed label of their own.
//
// # Series sets
//
// What a block has to say to some matchers, whatever the time range, shard or limit, is a series
// set: all segments with all chunk references. Deps.Sets keeps sets. A plan that finds its set
// needs no header, postings or series entries; its stream cuts from the set's segments what the
// request asks for. A set that is not kept is built by the requests that need it, from one stream
// that they share (setBuild), where that pays. Requests are charged for a set as if they had read
// what it was made of.
//
// # Chunk records
//
// A ChunkReader fetches the records of many references together. How long a record is its own head
// says, which may be damaged: one that reaches into the next is an error, and for one that is
// longer than its bound bytes are reserved (Reserver) before it is read. It does not verify them: whoever
// copies them does, while the bytes are hot, and asks for Reread of a record that fails.
//
// # Who owns which bytes
//
// Pages are immutable and garbage collected; records and decoded entries alias them. Segments are
// immutable once returned. Everything else in a Stream (symbols, raw series, scratch) is its own
// and reused from segment to segment. What all of that takes is the request's: Plan.StreamBytes
// estimates it from the entries. Where labels or entries are longer, the stream reserves more bytes
// (Reserver) and releases them when it no longer needs them. Bytes that a ChunkReader reserves
// belong to its Batch. A Block holds no bytes: headers are borrowed from the manager for
// the life of a Plan. Series sets are immutable, and the cache's.
//
// # Locks
//
// Block.mu guards the list of chunk files, the matcher sets that came to nothing, and the series
// sets under construction with the number of their readers; setBuild.mu guards the log of one such
// set. Neither is held while reading, waiting or calling out, nor one while taking the other.
// Streams, plans and chunk readers belong to one goroutine.
package block
