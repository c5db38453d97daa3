// Package slots bounds how many reads of the bucket run at once in the process.
//
// A Limiter has slots. Every read holds one while it runs. Requests whose reads wait take turns,
// one slot each, so that a large request does not delay a small one by all of its reads. When the
// bucket asks for fewer requests (503 SlowDown, 429), the limit is halved, at most once a second,
// because requests on their way were sent under the former limit. Every answered request adds
// 1/limit. A round of as many answers as there are slots therefore adds about one slot, up to the
// number at the start, and while reads wait up to the maximum.
//
// # Which callers acquire a slot
//
// pagecache acquires a slot for every flight, and hedge tries to get a spare one for an extra
// request. Bound acquires one for all other callers: builds of index headers, the catalog's sync,
// listings. One number therefore bounds them all.
//
// INVARIANT: a goroutine that holds a slot does not wait for another slot, nor for anything that
// waits for one.
//
// A read that waits for its next attempt is paused: it keeps its slot, which does not count.
// Otherwise a fault of one object would use up the slots of all others. It resumes without waiting.
// The limit may be exceeded by that, which is accepted because the budget of internal/bucket/retry
// bounds it.
//
// # Locks
//
// Limiter.mu guards the counts and the queue. Nothing is called or waited for under it.
package slots
