// Package process runs larder, and what it depends on, as child processes of a benchmark.
//
// A Child dies with the benchmark. Its log is kept for the case that it fails, its memory is read
// from /proc, and a cgroup bounds that memory where the user may make one.
//
// # What it holds
//
// A Child owns its process and its cgroup until Kill. LOCKING: Child.mu guards the last lines of
// the log. No other lock is taken while it is held.
package process
