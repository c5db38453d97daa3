// Package chunkcache reads the chunk files of blocks through a cache.
//
// # What is kept
//
// Chunk pages: aligned pieces (8 KiB by default) of the objects
// <block>/chunks/<number>, as the bucket sent them, headers and checksums of
// the records included. A chunk that lies on two pages is two entries; a page is
// usually shared by the chunks of several series.
//
// # Keyed how
//
// By 64 bits: the block's number within this process (24), the number of the
// chunk file, from 1 on (14), page number (26). Numbers of blocks are given out
// by the catalog and never used twice. What does not fit (a block's 16,384th
// chunk file) is served uncached. In memcached, which other processes share
// (Options.Remote), a page is named by the block's ULID and content instead, the
// number of the file, the page size and the page number.
//
// # Evicted how, under which allowance
//
// Chunk pages have an allowance of their own (Options.MaxBytes), bookkeeping
// included. Within it package bytecache decides what stays: a page that is not
// asked for a second time soon makes room first, so that one export of cold data
// does not flush what dashboards use. There is no expiry: blocks are immutable.
//
// # Who owns which bytes
//
// See package pagecache: pages are immutable and owned by the garbage
// collector. The package has no locks of its own.
package chunkcache
