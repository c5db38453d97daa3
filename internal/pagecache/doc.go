// Package pagecache reads byte ranges of immutable bucket objects through fixed-size, aligned
// pages.
//
// Reader.Fetch names spans of one object. Their pages come from the cache, from a flight that
// another request has started, or from a flight of their own. The result is a Pages, from which the
// caller cuts views of the bytes.
//
//	spans -> pages -> found in memory
//	                -> looked up in memcached     (one question for all of them)
//	                -> joined to a flight         (another request reads it)
//	                -> claimed, planned, read     (this request starts the read)
//
// The number of bytes is checked and nothing else. The caller verifies the checksums of what it
// decodes, and calls Refetch if one does not match.
//
// # Ownership of bytes
//
// Pages are immutable, have their exact size, belong to the garbage collector and are never pooled.
// The cache, any number of requests and a flight may share a page, and none may write to it. The
// result of Pages.Bytes aliases a page, or the caller's scratch if the range lies on several pages.
// The only pooled memory is the buffer of at most 256 KiB, or one page, through which a body
// passes. No slice of it outlives the read.
//
// # Flights
//
// A flight is one read of the bucket that any number of requests wait for. It is detached from the
// request that started it, and has a deadline of its own. Pages are published in ascending order as
// they arrive, so that a waiter continues once its last page is there. A flight without waiters is
// cancelled and can no longer be joined.
//
// A read that fails is not repeated here, because internal/bucket/retry has already done that: all
// waiters that still lack a page get the error. Only after a body that was longer than its range
// does the flight read all bytes again, up to three times. A failure is never remembered.
//
// A flight queues for bytes and its slot as the most urgent of its waiters, see
// internal/bucket/slots. Look-ahead that a request joins therefore becomes demand.
//
// A flight can be joined while it is still queued for its bytes or its slot. Therefore N identical
// misses make one read under load too. Nothing waits upward: bytes and slots are held by reads that
// have a deadline and need nothing else.
//
// # Look-ups
//
// If the cache has a remote tier, it is asked first for the pages that memory does not have, unless
// they are on their way from the bucket already. A look-up is shared and detached, same as a
// flight. It cannot fail, only find nothing, and the cache bounds its duration.
//
// A page that was not found stays with its look-up until one of the waiting requests claims it. The
// others then know of the flight, and get its pages even if it has ended before they ask. Therefore
// N identical misses make one read without a memory tier too.
//
// # Locks
//
// There is one: Reader.mu. It guards the tables of pages in flight and of pages being looked up,
// the waiters and progress of flights and look-ups, and whether the reader is closed. No read,
// callback or wait happens under it. The cache is called under it only for pages that were
// published while the lock was being acquired, and then only for what is in memory.
package pagecache
