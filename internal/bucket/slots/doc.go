// Package slots bounds how many reads of the bucket run at once in the process,
// and lets the bucket lower that bound.
//
// Slots are handed out first come, first served. An answer by which the bucket
// asks for fewer requests (503 SlowDown, 429) halves the limit, at most once a
// second: what is on its way then was sent under the old one. Every answered
// request adds 1/limit back, so that as many answers as there are slots add
// about one, up to the maximum.
//
// # Which callers take a slot
//
// Every read of the bucket takes one slot. pagecache takes it for a flight, and
// hedge tries to get a spare one for an extra request. Bound takes it for all
// other callers: builds of index headers, the catalog's sync, listings. One
// number therefore bounds them all.
//
// INVARIANT: nothing that holds a slot waits for another slot, or for anything
// that waits for one. A read that waits for its next attempt rests: its slot
// stays its own but is not counted, so that a fault of one object does not take
// the slots of the others. It wakes without waiting; internal/bucket/retry's budget
// bounds how many go over the limit by that.
//
// # Locks
//
// Slots.mu guards the counts and the queue. Nothing is called or waited for
// under it.
package slots
