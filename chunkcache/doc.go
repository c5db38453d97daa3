// Package chunkcache reads the chunk files of blocks through a cache.
//
// New opens a cache over a bucket, Object names a chunk file, and Fetch reads spans of it. The
// cache keeps chunk pages: aligned pieces (8 KiB by default) of the objects
// <block>/chunks/<number>, as the bucket sent them, with the headers and checksums of the records.
// A chunk that lies on two pages has two entries. The chunks of several series usually share a
// page.
//
// # Keys
//
// A key has 64 bits: the block's number within this process (24), the number of the chunk file,
// from 1 on (14), and the page number (26). The catalog never uses a block number twice. A number
// that does not fit, such as that of a block's 16,384th chunk file, is served uncached. In
// memcached, which other processes share (Options.Remote), a page is named by the block's ULID and
// content, the number of the file, the page size and the page number.
//
// # Eviction
//
// Chunk pages have an allowance of their own (Options.MaxBytes), bookkeeping included. Within it,
// package bytecache evicts first the pages that are not requested a second time soon. One export of
// cold data therefore does not flush what dashboards use. Nothing expires, because blocks are
// immutable.
//
// # Ownership of bytes
//
// See package pagecache: pages are immutable and owned by the garbage collector. The package has no
// locks of its own.
package chunkcache
