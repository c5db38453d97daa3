// Package catalog knows what blocks the bucket holds and which of them this process serves.
//
// A Catalog lists the bucket, reads the meta.json of the blocks it has not met before, looks at
// deletion marks, and publishes what is left after the filters as a View: an immutable value behind
// an atomic pointer, so that a query chooses its blocks without a lock and keeps its choice for as
// long as it runs.
//
// # What a sync costs
//
// One listing (of the root, or of the whole bucket with Recursive), one GET per block not seen
// before, and GETs of deletion marks: one for every new block, and at most max(256, n/8) for the n
// known ones, in rotation. With Recursive the listing shows the marks, and only marks that appeared
// are read. A known block costs no meta request, across restarts too: copies of meta.json are kept
// under meta/ in Options.Dir. A second and a third listing follow if a block vanishes between the
// listing and the read of its meta.json, see look.go.
//
// # What a sync may change
//
// A sync is complete when the listing ended without error, nothing contradicted it, and every
// meta.json was either read or is missing or broken by itself. Only a complete sync lets filters
// and marks remove blocks; any other one adds what it found and keeps the rest.
//
// A block that a listing lacks leaves at once if it was seen marked for deletion. Else it leaves
// only if its meta.json is missing too: at most max(256, n/8) are looked for in a sync, those first
// of which a request has missed an object. If more than half of the known blocks are lacking,
// without a mark and without a listed block that has all their sources, the listing is in doubt:
// these blocks stay until a listing five minutes later agrees. What is known is what the last
// listing showed, or at a start the saved catalog, whatever filters make of it. A meta.json that is
// there although the listing lacks its block makes the sync incomplete, for ten minutes and five
// syncs.
//
// A first listing that shows blocks and has the meta.json of none contradicts itself: the catalog
// is not ready. It is believed if one five minutes later says the same, because a new bucket may
// hold nothing but unfinished uploads.
//
// A block whose meta.json is missing or broken harms no other: it is skipped, counted, and read
// again at every sync, for most often an upload is not over; after two days once an hour, and by
// every refresh: it may be what replaced the block that the refresh is made for. A meta.json that
// cannot be read for another reason makes the sync incomplete; after five attempts, while other
// blocks are known, that ends, so that one unreadable object cannot stop removals for ever: a block
// that is served stays as it was known, any other is treated as broken, but not before ten minutes
// have passed: it may be what replaced others. At a first start, where nothing is served yet,
// twenty seconds are enough for answers that are final (denied access, an archived object) about at
// most half as many objects as were read well.
//
// # Blocks that were converted to Parquet
//
// With Options.Parquet every sync also reads that bucket, before it lists the blocks. A block is
// left out when days that name it as their source cover all of its time. The files there stand for
// themselves: one that cannot be read counts as it did before, and an error never makes the view
// incomplete. Nothing of it is kept on disk: until that bucket was read, its blocks are served.
//
// # What documents take
//
// Everything that is read of the bucket, and every local copy, reserves memory in one account
// (documents) before its bytes are read, and until they are decoded. decodeMeta bounds what one
// meta.json decodes to; keeping bounds what is kept of those that keep much. What is beyond a bound
// is refused: its block counts as broken. The bytes of a document are in nothing that is kept, but
// for packedMetas.
//
// # How large a block's files are
//
// meta.json states it, and no checksum covers that. Measure asks the bucket: where a size is not
// stated, before the block's index header is built, and where a read shows that one does not hold.
// What the bucket says is part of the block's identity (Block.Content) from then on, and the view
// has the block under a new number: what was derived from the former files is not used with these.
// A measurement that changed nothing is not repeated for a second, then for two, up to a minute.
// Names of chunk files that are not known are listed, or, where the listing does not come, tried
// one after another.
//
// # What is on disk
//
// Every file, among them extents/<ULID>.json with what the bucket said about the files of a block,
// is one line with kind, version, length and crc32c, then the payload, written to a temporary name
// and renamed. Under Options.Dir: meta/<ULID>.json is the meta.json as it was in the bucket;
// catalog.json lists the blocks of the last complete sync with what is known of their marks, for a
// start with an unreachable bucket. A file that does not verify is treated as absent: its block is
// read from the bucket again. meta copies are synced before the catalog.json that lists them, many
// at once. Without a Dir the meta.json files are kept in memory, compressed, for Document alone; so
// are those that the disk did not take. A complete sync reads some of those that are not on disk
// again, until all are.
//
// A disk that is full, read-only or gone costs copies, never a sync: what it does not take is
// counted, and tried again. What is saved is written when the turn is over, so that a slow disk
// holds up no refresh.
//
// # Who owns what, and the locks
//
// Blocks, Sets and Views are immutable once published; their slices and labels are shared and must
// not be modified.
//
//   - Catalog.turn (a channel of one) is held for a whole sync and guards the sync's own state:
//     records, broken blocks. No goroutine waits for it while holding mu.
//   - Catalog.mu is held for a publication: it guards the tombstones, numbers, extents, the status,
//     and the changes that Options.OnChange is still to be told of. No bucket request, no sync and
//     no call of OnChange runs under it.
//   - Catalog.saveMu is held while catalog.json is written: one writer at a time, and no older
//     content after a newer.
//   - localStore.mu guards the list of copies to be synced.
//   - Catalog.flightMu guards the measurements, and the start of refreshes and measurements against
//     Close.
//   - Catalog.parquetMu is held while the Parquet bucket is read. Syncs and refreshes see the last
//     result without it.
//   - packedMetas.mu guards its map, and no packing runs under it.
//   - keeping.mu guards what one sync keeps of large documents, and is held while one is dropped.
package catalog
