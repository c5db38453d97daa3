// Package indexheader keeps index headers: small local files that let a block be queried without
// its index. A header knows the block's label names, their values, where each value's posting list
// lies in the index, and the symbol table. It is built by reading two tables of the index from the
// bucket, once, and laid out so that a look-up reads a few whole blocks of at most 16 KiB.
// docs/format.md draws the layout.
//
// # How it is used
//
// A Manager has all headers of a process. Acquire gives a Header, opened from its file or built
// from the bucket, until it is released. Prefetch builds in the background, the newest block first;
// what a query waits for goes in front of that. Forget drops a block.
//
// Any number of callers that want one header wait for one flight. It is detached from the caller
// that started it, has a deadline of its own, and ends early only when no caller waits any more. A
// flight that failed is forgotten: the next caller starts another one. Its reads are not repeated
// here, because Options.Bucket does that (internal/bucket/retry).
//
// # Trust
//
// A header is one content's of a block (Source.Content), and its file says which. Whoever asks for
// another has another one built; who still uses the old one keeps it.
//
// A header is published only if the checksums of the index's table of contents and of both tables
// were right. Every block of it has a checksum that each read verifies. Damage of a file is never
// an answer, and never an error while the bucket can be read: the file is dropped, the header built
// again, and the look-up that met it goes on where it was.
//
// A header that was just built serves at once; its file is synced and gets its name while nobody
// waits. A process that is killed at any moment leaves complete files, and temporary ones that the
// next start removes. Two processes may use one directory: each writes under names of its own,
// holds the lock of what it is writing, and at worst builds what the other has removed.
//
// What the local disk does not take, or does not give back, is in memory, within MaxOpenBytes, and
// offered to the disk again and again; so is a header whose file somebody has removed. A look-up
// fails for the bucket alone.
//
// # Ownership of bytes
//
// What a look-up passes to a callback lies in a pooled buffer or in the cache of blocks and is
// valid until the callback returns. LabelNames belongs to the header and must not be changed; its
// strings stay good for ever. Blocks in the cache are never changed nor pooled.
//
// Memory is bounded by four allowances: open headers (their sparse tables, about a five-hundredth
// of the file; all of it in diskless mode and for a moment in a small header that has no file yet),
// cached blocks, bytes of running builds, and a buffer per running look-up.
//
// # Locks
//
// Manager.mu guards the manager and its entries. Nothing waits, reads or writes while it is held.
// entry.fileMu orders the naming and the removal of a block's file; Manager.mu is taken under it,
// never the other way round. blockCache.mu guards the cache's ring; none is taken under it.
// Look-ups take no lock.
package indexheader
