// Package process builds and runs larder for benchmarks, and the servers that it depends on, as
// child processes. NewLarder and Run start larder; Ready, Get and Metrics ask it over HTTP. Start
// runs any other program as a Child, and Kill, Signal and Wait control it. Children end with the
// benchmark. Main and Choose are the common parts of the commands.
//
// The log of a Child is kept for error messages, and its memory is read from /proc. A cgroup limits
// that memory if the user may make one.
//
// # Ownership
//
// A Child owns its process and its cgroup until Kill.
//
// LOCKING: Child.mu guards the last lines of the log. No other lock is taken while it is held.
package process
