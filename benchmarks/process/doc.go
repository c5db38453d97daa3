// Package process runs larder, and the servers that it depends on, as child processes of a
// benchmark. Start runs a program as a Child, which ends with the benchmark. Wait waits until it is
// ready, Kill and Signal end it. Its log is kept for error messages, and its memory is read from
// /proc. A cgroup limits that memory if the user may make one.
//
// # Ownership
//
// A Child owns its process and its cgroup until Kill. LOCKING: Child.mu guards the last lines of
// the log. No other lock is taken while it is held.
package process
