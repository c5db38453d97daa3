// Package prefetch reads indexes of blocks into the disk cache in the background, so that a cold
// query waits for chunks only. A Prefetcher gets each view of the catalog, and reads the indexes of
// the blocks that were queried recently and of the newest ones, newest first, as far as they fit in
// Options.MaxBytes.
//
// # What is read
//
// Requests read posting lists and series through pages. Symbols and posting offsets they read from
// the local index header. Therefore the Prefetcher waits for the header of a block, and then reads
// its postings and after them its series. The bytes of an index that the build of a header reads
// pass through Keep, which offers the pages of postings and series among them to the disk. A small
// index is read whole by the build of its header. Pages that the disk has are not read again.
//
// A page is one of the index page cache: it has the same identity, and is verified where it is
// decoded. It goes to the disk only, not into memory and not into memcached.
//
// # Demand comes first
//
// One read runs at a time, of up to 8 MiB. It queues as look-ahead (internal/bucket/slots), and
// waits while requests wait for memory or a place. So that steady demand cannot stop it, a read
// that falls behind Options.MinRate becomes demand of the process. A read waits until the disk has
// space in its queue, so that pages are found as soon as they are read. While the disk is unwell,
// or has used up its bytes of the day, nothing is read.
//
// # What is not read again
//
// A block is read once. If the disk evicts pages of its index, they are not read again until the
// block is queried after that, and at most once an hour. Which blocks these are is kept in a file
// over restarts. If the disk loses pages in another way, because it failed or was replaced, all
// blocks are looked at again.
//
// # Locks and goroutines
//
// Prefetcher.mu guards the view, the evictions that Run has not seen, and the figures of the
// metrics. Nothing is read or waited for under it. All else belongs to the goroutine of Run.
//
// # Accepted risks
//
// A request that needs a page at the end of a running read waits for up to 8 MiB. A page that the
// disk takes for another one (one in 300,000) is not read, and costs a request one read.
package prefetch
