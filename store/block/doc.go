// Package block reads one block of the bucket: postings become segments, and chunk references
// become chunk records. Block.Plan asks package postings for the series that match, or finds a
// series set that answers the request. Plan.Stream then returns the series in final order, segment
// by segment. It has few segments at a time, unless it sorts the series or makes a set of them.
// ChunkReader fetches the records of their chunks, a batch at a time. A Block holds no bytes and no
// file, so that it may leave the catalog at any moment.
//
// # Files
//
//   - block.go: the Block, its plans and their estimates. setplan.go: plans with series sets.
//   - stream.go: the stream. run.go reads its entries, decode.go decodes them, narrow.go leaves out
//     what a caller that collects strings does not need, symbols.go resolves their symbols,
//     layout.go writes final labels, order.go restores their order, segment.go is the result.
//   - shape.go, irregular.go and sorted.go: blocks that are out of order.
//   - seriesset.go: a kept set. setbuild.go: one under construction. setstream.go: streams of both.
//   - chunks.go: chunk records. files.go: the sizes of files. lister.go: whether a block exists.
//   - errors.go: what an error says about a block. reserver.go: memory beyond the estimate.
//
// # Segments
//
// A Stream reads the series entries of a plan's postings in runs, one run ahead. A small plan has
// only one run, because each costs the bucket's first byte. The stream turns the entries into
// Segments: finished label bytes with external labels in place, in the order of the final label
// sets (order.go has the theorem), and references to the chunks in range with a bound of each
// record's length. Numbers of series, entry bytes and label bytes limit a segment. If the symbols
// of a segment do not fit into the symbol table, its last series are decoded again for the next
// segment.
//
// # Irregular blocks
//
// A stream checks the shape that all of this depends on (shape.go): names ascend, no value is
// empty, series ascend. A block that fails the check is irregular from then on. Its plans leave no
// matcher pending. Its streams normalise labels and sort the series in memory, in several passes if
// needed (sorted.go). Blocks with an external or removed label of their own are sorted in the same
// way.
//
// # Series sets
//
// A series set has all segments with all chunk references that some matchers select, for every time
// range, shard and limit. Deps.Sets keeps sets, and decides when building one pays. A plan that
// finds its set needs no header, postings or series entries: its stream cuts from the set's
// segments what the request asks for. Requests that need a set which is not kept may build it from
// one stream that they share (setBuild). Requests are charged for a set as if they had read its
// index pages.
//
// # Chunk records
//
// The head of a record says how long it is, and may be damaged. A record that reaches into the next
// one is read again from the bucket, past the cache; it is an error if it still does. Before a
// ChunkReader reads a record that is longer than its bound, it reserves the bytes. It verifies only
// records that it reads again. The encoder verifies the others while it copies them, and asks for
// Reread of a record that fails.
//
// # Bytes
//
// Pages are immutable and garbage collected; records and decoded entries alias them. Segments are
// immutable once returned. Symbols, raw series and scratch buffers belong to their Stream while it
// decodes. It uses them again for each segment, and leaves them to Deps.Buffers, which keeps at
// most 4 MiB for later streams (buffers.go). The request pays for all of them: Plan.StreamBytes
// estimates them from the entries and from what the stream keeps of them, and the stream reserves
// more through StreamOptions.Reserver where labels or entries are longer. Bytes that a ChunkReader
// reserves belong to its Batch. A plan borrows its header until Close. Series sets are immutable
// and belong to the cache.
//
// # Locks
//
// Block.mu guards matcher sets with empty results, and the series sets under construction with
// their numbers of readers. setBuild.mu guards the log of one such set. lastFile.mu guards one
// number. Buffers.mu guards the decoding buffers that no stream uses. None is held while reading,
// waiting or calling out, and none while another is taken. Streams, plans and batches of chunks
// belong to one goroutine each.
//
// # Accepted risks
//
// A segment that was sent cannot be recalled. If a block turns out irregular after that, the
// request fails, because the rest would be out of order. Thanos would answer.
package block
