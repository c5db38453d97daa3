// Package store is the StoreAPI and Info service over the blocks of a bucket.
//
// A Series call waits for its turn, picks blocks from the catalog's view, finds their postings side by side, settles for the bytes that it
// will need, and then streams: block.Streams decode series in final label order, a loser tree merges them, windows of merged series have
// their chunks fetched together, and an encoder writes verified chunk records into pooled frames. While one window is sent, the next
// is being fetched. Label calls use the same streams without chunks.
//
// # Who owns which bytes
//
// Segments (label bytes, chunk references) and pages belong to the garbage collector and are immutable; windows, merge and encoder refer to
// them. Windows and the encoder's buffers belong to their request and are reused by it. Only frame buffers are pooled across requests: a
// storepb.FrameWriter copies everything into them, so that nothing of a request outlives it.
//
// # What a request may hold
//
// Postings, two runs of index pages and a few segments for each block, two windows and two frames. The estimate of it, and one window, is had from the
// Admission before the first frame. After that a request never waits for memory with any in its hands: larger windows and the second one are taken if they are
// free at once. What it holds it holds no longer than its client reads: stalls ends a request whose Send has been blocked for the stall time-out.
//
// Its message and what the expressions in it compile to are counted apart (texts), from before it has its turn until it ends. That account is never waited for:
// a request that finds no room there is refused. Expressions are measured before they are compiled (costOf).
//
// # The order in which things are had
//
// First the bytes of its text, or none. Then, in one step, a place and the bytes of a small request (Admission.Enter). Then, without waiting, what planning needs (Turn.Plan) and what answering
// needs (Turn.Settle). Whoever cannot have that at once drops its plan, gives back its place and all its bytes, and only then waits for a place with as many bytes
// as it needs, in one step again (Turn.Wait); then it plans anew. So nothing that waits for its turn holds anything that another needs, and nothing that
// holds something waits for a turn. What a request waits for while it holds a turn, headers, reads of the bucket and its client, has deadlines of its
// own, and none of it waits for a turn.
//
// # Locks
//
// Server.mu guards the map of block readers, Admission.mu all turns, texts.mu what texts take,
// tenantNames.mu the tenants that metrics name, stalls.mu the requests that send. None of them is held
// while reading, sending or waiting. Admission.mu is taken under stringSet.mu, which guards the strings
// of a label answer, and sizeHistogram.mu under tenantNames.mu; no other two are held together.
// docs/locks.md has all of the process.
package store
