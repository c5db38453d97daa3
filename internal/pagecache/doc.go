// Package pagecache reads byte ranges of immutable bucket objects through
// fixed-size, aligned pages.
//
// A Fetch names spans of one object. Their pages come from the cache, from a
// flight that another request already started, or from a flight of their own;
// the answer is a Pages, from which the caller cuts views of the bytes.
//
//	spans -> pages -> cache hit in memory
//	                -> looked up in memcached    (one question for all of them)
//	                -> joined to a flight        (another request reads it)
//	                -> claimed, planned, read    (this request starts the read)
//
// # Who owns which bytes
//
// Pages are immutable, exact-size, owned by the garbage collector and never
// pooled: the cache, any number of requests and a flight may hold the same
// page, and none may write to it. What Pages.Bytes returns aliases a page, or
// the caller's own scratch when the range lies on several pages. The only
// pooled memory is the 256 KiB buffer that a read's body passes through; no
// slice of it leaves the read.
//
// The bytes are as the bucket sent them, only their number has been checked:
// verifying the checksum of what is decoded from them, and calling Refetch
// when it does not match, is the reader's duty.
//
// # Flights
//
// A flight is one read of the bucket that any number of requests wait for. It
// is detached from the request that started it and has a deadline of its own.
// Pages are published in ascending order as they arrive, so that a waiter goes
// on as soon as the last page it needs is there. A flight without waiters is cancelled
// and can no longer be joined. A read that fails is not repeated here, because
// internal/bucket/retry has already done that: all waiters that still lack a page get
// the error. Only after a body that was longer than its range does the flight read all
// bytes again, up to three times. A failure is never remembered.
//
// A flight can be joined while it is still queued for its bytes or its read
// slot: only so do N identical misses make one read under pressure. Nothing
// waits upward: bytes and slots are held by reads that run against a deadline,
// and a read needs nothing else.
//
// # Look-ups
//
// Where the cache has a remote tier, the pages that memory does not have are
// asked of it first, unless they are on their way from the bucket already. A
// look-up is shared and detached as a flight is: whoever needs a page that is
// being asked for waits for that answer. It cannot fail, only find nothing, and
// the cache bounds how long it takes. What it did not find stays its until one of
// those who waited claims it: they know of the flight then, and have its pages
// even if it is over before they come, so that without a memory tier, too, N
// identical misses make one read.
//
// # Locks
//
// There is one: Reader.mu. It guards the tables of pages in flight and of pages
// being looked up, every flight's waiters and progress, every look-up's waiters
// and what became of its pages, and whether the reader is closed; claiming pages,
// joining, leaving, publishing and ending are each done under it. No read, no
// callback of the caller and no waiting happens under it. The cache is called
// under it only for pages that were published while the lock was waited for, and
// then only what is in memory.
package pagecache
