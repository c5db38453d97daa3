// Package indexheader keeps index headers: small local files that let a block be queried without
// its index.
//
// A header has the block's label names, their values, the place of each value's posting list in the
// index, and the symbol table. It is built once, by reading two tables of the index from the
// bucket. A look-up in it reads a few blocks of at most 16 KiB. docs/format.md draws the layout.
//
// # How it is used
//
// A Manager has all headers of a process. Acquire opens a header from its file, or builds it from
// the bucket, and keeps it open until it is released. Prefetch builds headers in the background,
// those of the newest blocks first. Builds that a query waits for go first. Forget drops a block.
//
// Any number of callers that want one header wait for one flight. It is detached from the caller
// that started it and has a deadline of its own. It is cancelled early only when its last caller
// has left. A failed flight is forgotten, and the next caller starts another one. Its reads are not
// repeated here, because Options.Bucket does that (internal/bucket/retry).
//
// # Trust
//
// A header belongs to one version of a block's contents (Source.Content), and its file says which
// one. A request for other contents builds another header. Callers that use the old one keep it.
//
// A header is published only if the checksums of the index's table of contents and of both tables
// match. Every block of it has a checksum, which each read verifies. Damage of a file is never an
// answer, and never an error while the bucket can be read: the file is dropped, the header is built
// again, and the look-up that found the damage continues.
//
// A new header is used at once. Its file is synced and named while no caller waits. A process that
// is killed at any moment leaves complete files, and temporary ones that the next start removes.
// Two processes may use one directory: each writes under names of its own and locks the files that
// it writes. At worst, each builds the headers that the other has removed.
//
// A header that the local disk cannot store or read back stays in memory, within MaxOpenBytes. So
// does a header whose file was removed. Saving is retried until it succeeds. A look-up fails only
// because of the bucket.
//
// # Ownership of bytes
//
// The bytes that a look-up passes to a callback lie in a pooled buffer or in the cache of blocks,
// and are valid until the callback returns. LabelNames belongs to the header and must not be
// changed. Its strings stay valid. Blocks in the cache are never changed and never pooled.
//
// Four allowances bound memory: open headers, cached blocks, bytes of running builds, and a buffer
// for each running look-up. An open header has its sparse tables in memory, about a five-hundredth
// of the file. Without a disk, or while a small header has no file yet, it is in memory as a whole.
//
// # Locks
//
// Manager.mu guards the manager and its entries. Nothing waits, reads or writes while it is held.
// entry.fileMu orders the naming and the removal of a block's file. Manager.mu may be taken under
// it, but not the other way round. blockCache.mu guards the ring of the cache, and no lock is taken
// under it. Look-ups take no lock.
package indexheader
