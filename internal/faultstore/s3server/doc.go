// Package s3server is a minimal S3 server over a folder, for tests and benchmarks that need a real
// client and a real connection: objects with ranges, their heads, and listings (version 2), which
// is all that reads a bucket. Any signature is accepted, nothing is written.
//
// Faults of a faultstore.Faults happen on the wire: error documents, silence, bodies that stall,
// end early, go on too long or have a bit flipped, connections that are reset. Latency models a
// bucket that is healthy and far away.
//
// A head is objstore.OpAttributes to the rules, whatever the client asks it for; a read with a
// range is OpGetRange, without one OpGet; a page of a listing is OpIter, and its name the folder.
//
// # Goroutines and locks
//
// One goroutine serves, net/http has one for each connection; Close ends all, what waits too.
// Server.mu guards the random source of latencies and the counts.
package s3server
