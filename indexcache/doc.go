// Package indexcache reads the indexes of blocks through a cache.
//
// # What is kept
//
// Index pages: aligned pieces (8 KiB by default) of the objects <block>/index,
// as the bucket sent them. Only pages that a request needed, or that were read
// to join two that it needed, are kept; the symbols and posting offsets that
// local index headers hold are never read through here.
//
// Expanded postings: what the matchers of a request come to in a block, also
// where that is nothing, written by package block. They spare a request the
// posting lists and what it takes to combine them.
//
// # Keyed how
//
// Expanded postings by a SHA-256 of the block's ULID and the matchers in
// canonical order; in memory by 64 bits of that, with the whole beside the value.
//
// Pages by 64 bits: the block's number within this process (24), file number 0 (14),
// page number (26). Numbers are given out by the catalog and never used twice,
// so an entry can be stale only in the sense that nobody asks for it any more.
// A block whose number does not fit is served uncached.
//
// # Evicted how, under which allowance
//
// Index pages and expanded postings have an allowance each (Options.MaxBytes,
// Options.PostingsBytes), bookkeeping included: no kind displaces another. Within it a
// page is admitted when it has been asked for at least as often as the least
// wanted of a few others, which then go (TinyLFU with sampled LFU eviction): one
// scan does not flush what dashboards use. There is no expiry: blocks are
// immutable.
//
// # Who owns which bytes
//
// See package pagecache: pages are immutable and owned by the garbage
// collector. The package has no locks of its own.
package indexcache
