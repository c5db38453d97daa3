// Package panics keeps a panic from ending the process: it becomes an error of
// what panicked, is counted in larder_panics_total, and is logged with its stack.
//
// Every goroutine that runs code of others (a client of the bucket, a resolver,
// a callback), or much code of its own, runs it contained. Whoever has a Guard
// uses Do, or Caught where a deferred function has more to clean up; a request's
// goroutines use Contained, and the end of the request notes what came of it.
// What is noted is noted once, however many wait for the work that panicked.
//
// A panic is a bug all the same: the process goes on because one request's bug is
// no reason to fail the others, not because it were harmless. So what is contained
// must leave no lock locked, no place taken and nobody waiting: give back in
// deferred calls.
package panics
