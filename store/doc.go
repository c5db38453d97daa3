// Package store serves the StoreAPI and the Info service over the blocks of a bucket.
//
// A Series request waits for its turn, chooses blocks from the catalog's view and finds their
// postings concurrently. It reserves the bytes that it will need, and streams. Streams decode
// series in the final order of labels, a loser tree merges them, and windows of merged series have
// their chunks fetched together. While one window is sent, the next ones are fetched. Label
// requests use the same streams without chunks.
//
// Reads of one phase start together, because each dependent read costs the bucket's first byte. A
// small plan reads all its series entries in one run. If the first chunks are not in memory, the
// first window has all chunks of an answer of up to 8 MiB. A larger one has as many windows in
// flight as its client needs in order not to wait for the bucket.
//
// # Where a Series request goes
//
//   - series.go checks the request, enters it, and runs attempts until one has answered.
//   - request.go holds its identity, accounts and stage times. answer repeats an attempt that has
//     to wait for bytes.
//   - attempt.go holds what one attempt knows from those before it: a state, and the transitions.
//   - plan.go chooses the blocks and finds their postings.
//   - estimate.go says how many bytes to reserve before the first frame.
//   - concurrency.go says how many blocks are read concurrently.
//   - pipeline.go starts the streams, fills windows and sends them. merge.go has the loser tree,
//     window.go a window, encode.go the chunks that a client gets.
//   - resume.go maps blocks to their replacements, and asks the bucket whether a block was deleted
//     or changed. With that, series.go resumes an answer after a block was replaced. After a block
//     was found irregular it restarts the answer, but only while no frame was sent.
//   - status.go turns errors and panics into the status that the client gets.
//
// A label request has files of its own:
//
//   - labels.go has both label requests and sends their answers. labelquestion.go says what each of
//     them asks a block for.
//   - labelanswer.go names answers, so that they can be cached: of each block, and of all blocks of
//     a request together.
//   - labelblocks.go chooses blocks, and asks those whose answer is not cached.
//   - stringset.go collects the strings of one block. stringlist.go unites those of all blocks.
//
// Its attempts are those of request.go and attempt.go. They never resume, because an answer is sent
// whole.
//
// # Who owns which bytes
//
// Segments (label bytes, chunk references) and pages belong to the garbage collector and are
// immutable; windows, merge and encoder refer to them. Windows and the encoder's buffers belong to
// their request and are reused by it. Only frame buffers are pooled across requests: a
// storepb.FrameWriter copies everything into them, so that nothing of a request outlives it.
//
// # What a request may hold
//
// Postings, two runs of index pages and a few segments for each block, its windows and two frames.
// A request reserves the estimate of these, with one window, before its first frame (package
// admission). After that it never waits for memory while it holds any: it reserves larger windows,
// up to 7 more of them, and goroutines for more than 32 blocks at a time, only if their bytes are
// free. A window that must exceed its bytes gets those of the other windows if no others are free.
// stalls ends a request whose client stops reading, because the request holds its bytes for as long
// as its client reads.
//
// The message of a request, and what its expressions compile to, are in an account of their own,
// from before its turn until its end. A request that does not fit there is rejected. Expressions
// are measured before they are compiled: see package matcher.
//
// # The order in which a request gets what it needs
//
// First the bytes of its message, or it is rejected. Then a place and the bytes of a small request,
// in one step. Then the bytes for planning and those for answering, without waiting. A request that
// cannot get these drops its plan, releases its place and all bytes, waits for as many as it needs,
// and plans again: see package admission. While it has its turn it waits for headers, for memory to
// find postings (postings.Account), for reads of the bucket and for its client. Blocks of a label
// request also wait for one another (union.large). Reads and clients have deadlines. The others
// wait only for reads. None waits for a turn.
//
// # Locks
//
// Server.mu guards the map of block readers, tenantNames.mu the tenants that metrics name,
// stalls.mu the requests that send. None of them is held while reading, sending or waiting.
// union.mu guards the strings of a label answer. labelBytes.mu is taken under it, and
// admission.Controller.mu under that. sizeHistogram.mu is taken under tenantNames.mu. No other two
// are held together. docs/locks.md has all locks of the process.
package store
