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
// Series sets: all decoded series of a block that match some matchers, as
// package block makes them. They live in this process's memory alone: what is
// kept is what a request walks, with nothing left to decode. Small filters
// remember which sets were asked for lately and which turned out too large.
//
// # Keyed how
//
// Series sets by everything that bears on them (the block's number and ULID, the
// final labels, the matchers in canonical order), compared whole.
//
// Expanded postings by a SHA-256 of the block's ULID and content, the page size,
// whether they were planned eagerly, and the matchers in canonical order; in
// memory by 64 bits of that, with the whole beside the value.
//
// Pages by 64 bits: the block's number within this process (24), file number 0 (14),
// page number (26). Numbers are given out by the catalog and never used twice,
// so an entry can be stale only in the sense that nobody asks for it any more.
// A block whose number does not fit is served uncached. In memcached, which other
// processes share (Options.Remote), a page is named by the block's ULID and
// content (a hash of its meta.json: what is replaced under its ULID is another
// block's), file number 0, the page size and the page number.
//
// # Evicted how, under which allowance
//
// Index pages, expanded postings and series sets have an allowance each
// (Options.MaxBytes, Options.PostingsBytes, Options.SeriesSetBytes), bookkeeping
// included: no kind displaces another. A third of the last is for sets under
// construction and for those that are read when they are evicted. Within each
// package bytecache decides what stays: what is not asked for a second time soon
// makes room first, so that one scan does not flush what dashboards use. A series set that is
// built for a request whose like was there before has been asked for twice by
// then. There is no expiry: blocks are immutable.
//
// # Who owns which bytes
//
// See package pagecache: pages are immutable and owned by the garbage
// collector; so are series sets.
//
// # Locks
//
// SeriesSets.putting is held while a set is taken in, SeriesSets.mu while the
// readers of a set are counted, filter.mu for a look at a filter.
package indexcache
