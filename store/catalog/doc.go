// Package catalog knows which blocks the bucket has and which of them this process serves.
//
// A Catalog lists the bucket, reads the meta.json of blocks that are new to it, checks deletion
// marks and applies filters. It publishes the result as a View, an immutable value behind an atomic
// pointer. A query chooses its blocks from the current view without a lock and uses that view to
// its end. Run keeps the view up to date; Refresh, Tombstone and Measure are for queries that find
// an object missing or of another size.
//
// # Cost of a sync
//
// A sync makes one listing: of the root, or of the whole bucket with Recursive. It makes one GET
// for each block not seen before. It reads the deletion mark of every new block and of at most
// max(256, n/8) of the n known blocks, in rotation. A recursive listing shows the marks, and only
// marks that are new are read. A known block costs no request for its meta.json, even after a
// restart, because copies are kept under meta/ in Options.Dir. A second and third listing follow if
// a block disappears between the listing and the read of its meta.json (see look.go).
//
// # When blocks are removed
//
// A sync is complete if the listing ended without error, nothing contradicts it, and every
// meta.json was read, is missing, or is broken. Only a complete sync lets filters and marks remove
// blocks. An incomplete one adds the blocks that it found and keeps the others.
//
// A block that is missing from a listing is removed at once if it was seen marked for deletion.
// Otherwise it is removed only if its meta.json is missing too. A sync checks at most max(256, n/8)
// of them, first those of which a request missed an object.
//
// A listing is in doubt if it lacks more than half of the known blocks, and these have neither a
// mark nor a listed block with all their sources. Such blocks stay until a listing five minutes
// later agrees. The known blocks are those of the last listing, or at a start those of the saved
// catalog, before any filter. If a block is missing from the listing but its meta.json exists, the
// sync is incomplete; this ends after ten minutes and five syncs.
//
// A first listing that shows blocks but not a single meta.json contradicts itself, and the catalog
// is not ready. It is believed if another listing five minutes later agrees, because a new bucket
// may have nothing but unfinished uploads.
//
// # Blocks that cannot be read
//
// A block whose meta.json is missing or broken affects no other block. It is skipped and counted.
// Its meta.json is read again at every sync, because an upload is usually in progress; after two
// days, once an hour. A refresh always reads it again, because it may be the replacement that the
// refresh looks for.
//
// A meta.json that cannot be read for another reason makes the sync incomplete. This ends after
// five attempts over ten minutes, if other blocks are known, because one unreadable object must not
// stop removals for ever. Then a served block stays as it was known, and any other counts as
// broken. At a first start nothing is served yet: twenty seconds are enough for final answers
// (access denied, archived object) about at most half as many objects as were read successfully.
//
// # Blocks that were converted to Parquet
//
// With Options.Parquet, every sync also reads that bucket, before it lists the blocks. A block is
// left out if days that name it as their source cover all of its time. A file of that bucket that
// cannot be read counts as it did before, and an error never makes the view incomplete. Nothing is
// kept on disk: all blocks are served until that bucket has been read.
//
// # Memory
//
// Every document of the bucket, and every local copy, reserves memory in the account of documents
// before its bytes are read, and until it is decoded. decodeMeta bounds the decoded size of one
// meta.json; retention bounds what is retained of large ones. A document beyond a bound is refused,
// and its block counts as broken. Nothing that is retained refers to the bytes of a document,
// except in packedMetas.
//
// # Sizes of files
//
// meta.json states the sizes of a block's files, and no checksum covers them. Measure asks the
// bucket instead, if a size is not stated or a read shows that it is wrong. The answer becomes part
// of the block's identity (Block.Content), and the view has the block under a new number. Data
// derived from the former files is therefore never used with the new ones. A measurement that
// changes nothing is not repeated for a second, then two, up to a minute. Unknown chunk files are
// listed. If listing fails, the names that writers use are tried in order.
//
// # Files on disk
//
// All files are in Options.Dir and use the format of package sealed:
//
//   - meta/<ULID>.json is a copy of the meta.json in the bucket.
//   - extents/<ULID>.json has the sizes of a block's files as the bucket stated them.
//   - catalog.json lists the blocks of the last complete sync and the state of their marks, for a
//     start with an unreachable bucket. The copies that it lists are synced before it.
//   - relabel.json has the relabel rules in use, and former ones whose blocks are still served. It
//     exists with Options.HashmodPatience only.
//
// A file that does not verify counts as absent, and its block is read from the bucket. Copies that
// the disk rejects, and all copies without a Dir, are kept in memory, compressed, for Document
// only. A complete sync reads some of the copies that are missing on disk again, until all are
// there.
//
// A disk that is full, read-only or gone costs copies, never a sync. Failures are counted and
// retried. catalog.json is written after the turn has ended, so that a slow disk delays no refresh.
//
// # Ownership and locks
//
// Blocks, Sets and Views are immutable once published. Their slices and labels are shared and must
// not be modified.
//
//   - Catalog.turn (a channel of one) is held for a whole sync and guards the records and broken
//     blocks. No goroutine waits for it while holding mu.
//   - Catalog.mu guards the tombstones, numbers, extents, status and the changes that OnChange was
//     not told yet. It is held for a publication. No bucket request, no sync and no call of
//     OnChange runs under it.
//   - Catalog.saveMu is held while catalog.json is written: one writer at a time, and never older
//     content after newer.
//   - Catalog.flightMu guards the measurements, and the start of refreshes and measurements against
//     Close.
//   - Catalog.parquetMu is held while the Parquet bucket is read. Syncs and refreshes read the last
//     result without it.
//   - localStore.mu guards the list of copies to be synced.
//   - packedMetas.mu guards its map. No document is compressed under it.
//   - retention.mu guards the sizes of large documents, and is held while one is dropped.
//
// # Accepted risks
//
// A deletion mark on a known block is noticed up to eight syncs late, because reading every mark at
// every sync would cost a request per block; the compactor's delete delay is much longer. A block
// whose copy was lost before the machine crashed is read from the bucket again.
package catalog
