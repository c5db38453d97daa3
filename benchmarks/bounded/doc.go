// Command bounded shows that larder's memory is bounded. `make memory-bound` runs it. It requests
// all of a block of 1,000,000 series from one process with a memory limit, many times at once. At
// the same time it requests a million label values and matches regular expressions against them,
// and measures how small queries fare. It prints a table of the results and exits with 1 if a
// promise of docs/memory.md was not kept.
//
// The process is the real one, with a real S3 client and a bucket that answers after 20 ms. Its
// limit is a cgroup if the user may make one, and in any case a GOMEMLIMIT of nine tenths of it.
// Clients read as fast as they can, and only hash and count what arrives. The answers are compared
// with those to the same requests sent alone.
package main
