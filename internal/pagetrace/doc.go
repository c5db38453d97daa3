// Package pagetrace records which pages requests need, in the order in which they need them.
// `larder bench curves` replays such a trace against caches of other sizes.
//
// # Format
//
// A trace is one file:
//
//	+--------------+----------------+----------------+---------------+---------+
//	| magic (8 B)  | threshold (8)  | length n (4)   | header (n)    | records |
//	+--------------+----------------+----------------+---------------+---------+
//
// Fixed numbers are little-endian. The header is JSON: the caches and their sizes. A record is one
// fetch, the pages of one object that a request needs together, as varints:
//
//	milliseconds since the last record | count << 1 | cache | object | first page | differences
//
// An object is its number in the process, not a name: a trace tells nothing about the contents of
// the bucket. A file that ends within a record was cut off there by the end of its process.
//
// # Sampling
//
// A page is in the trace if a hash of its key is at most the threshold. When the file has reached
// its limit, the threshold is halved, and the pages above it are removed from the file. All
// accesses to a page are in the trace, or none. For the sampled pages a cache of size S times the
// rate behaves like one of size S for all. That is the spatial sampling of SHARDS (Waldspurger et
// al., FAST 2015).
//
// # Ownership and locks
//
// LOCKING: Recorder.mu guards the buffer that requests append to. It is held for the encoding of
// one fetch. Full buffers go to one goroutine, which alone writes the file. If it falls behind,
// buffers are dropped and counted. Requests never wait for the disk.
package pagetrace
