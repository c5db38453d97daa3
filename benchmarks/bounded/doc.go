// Command bounded shows that larder's memory is bounded: it asks one process, with a limit on its
// memory, for all of a block of 1,000,000 series many times at once, asks for a million label
// values and matches regular expressions against them beside that, and looks how small queries fare
// meanwhile. `make memory-bound` runs it.
//
// The process is the real one, over a real S3 client and a bucket that is 20 ms away. Its limit is
// a cgroup's where this user may make one, and GOMEMLIMIT, nine tenths of it, in any case. Clients
// read as fast as they are sent to, and only hash and count what comes: the answers are compared
// with those to the same requests when they were alone.
//
// It prints a table of what became of the requests and exits with 1 if a promise of
// docs/memory.md was not kept.
package main
