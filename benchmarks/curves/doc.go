// Package curves draws miss-ratio curves from a trace of page accesses (internal/pagetrace): how
// many of the pages that requests needed would have been found if a cache had had another size.
//
// # Memory
//
// The simulated memory is the cache that ships, bytecache.Memory, with its admission policy. All
// values are one page, so that a cache of 100 GB takes no memory but its tables. The replay waits
// after each fetch until the policy has applied its pages. In a gateway the policy works beside the
// requests and may be behind.
//
// # Disk
//
// The simulated disk is a model of package diskcache: segments in the order in which pages were
// written, of which the oldest is removed if another one needs its place. Its pages that were read
// since are written again first, up to three quarters of a segment. The chunk disk takes pages at
// their second use. bytecache.Tiered, which ships, is between the two. The model has no limits of
// time and of bytes written, no pages from before the trace, and none that are read ahead.
//
// # What it leaves out
//
// Caches begin empty. memcached has a size that the gateway does not know, and is left out. Series
// sets and postings answer requests before pages are needed: the trace has what was left with their
// sizes. Requests that waited for the same page at the same time count as hits.
package curves
