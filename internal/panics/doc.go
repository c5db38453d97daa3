// Package panics turns panics into errors, counts them and logs them.
//
// Every goroutine that calls foreign code (a bucket client, a resolver, a callback), or much code
// of larder, runs it through this package, so that a panic does not end the process. A goroutine
// with a Guard calls Do, or Caught in a deferred function that has more to clean up. The goroutines
// of a request use Contained, and the end of the request calls Note. A panic is counted and logged
// once, even if several goroutines wait for the work that panicked.
//
// # Caveats
//
// A panic is a bug. The process continues, because a bug in one request is no reason to fail the
// others. Contained code must therefore release its locks and reservations and wake its waiters in
// deferred calls.
//
// # Locks
//
// None. Whether a panic is counted is an atomic.
package panics
