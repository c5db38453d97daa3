// Package faultstore is an object store for tests that fails as it is told to.
//
// Faults holds rules: which operations on which objects meet which fault, and how often. Bucket
// decorates an objstore.Bucket with them, for tests within one process. It also records its calls,
// and a Script can answer its reads. Package s3server puts the same faults on the wire, for real
// processes. The same seed fails the same calls.
//
// Rules can be replaced while reads run. Reads that have begun keep their fault: healing a bucket
// does not wake a stalled body.
//
// Errors are those of objstore's S3 client. IsObjNotFoundErr and IsAccessDeniedErr recognise them
// only unwrapped, same as real clients.
//
// # Goroutines, bytes and locks
//
// There is no goroutine. An answer that never comes and a stalled body end with their context, a
// body also with Close. Bytes belong to the caller: a bit is flipped in the caller's buffer.
//
// Faults.mu guards rules, counts and the random source. It is held while Rule.Match is called, and
// not while a call waits. recorder.mu guards the recorded calls, and is never held while a client
// or a script runs.
package faultstore
