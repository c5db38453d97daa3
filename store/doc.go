// Package store is the StoreAPI and Info service over the blocks of a bucket.
//
// A Series call passes the gate, picks blocks from the catalog's view, finds their postings side by side, reserves the bytes that it
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
// Postings, two runs of index pages and a few segments for each block, and two windows. The estimate of it, and one window, is reserved from the
// Allowance before the first frame. After that a request never waits for memory: larger windows and the second one are taken if they are
// free at once. What it holds it holds no longer than its client reads: stalls ends a request whose Send has been blocked for the stall time-out.
//
// # Locks
//
// Server.mu guards the map of block readers, request.mu a request's reservation, tenants.mu the names that metrics know, stalls.mu the
// requests that send; Allowance has one mutex, Gate none of its own. None of them is held while reading, sending or waiting. Under
// stringSet.mu, which guards the strings of a label answer, request.mu is taken, and under that the Allowance's; no other two are held
// together. docs/locks.md has all of the process.
package store
