// Package faultstore is an object store for tests that fails as it is told to, from a seed.
//
// Faults holds rules: which operations on which objects meet which fault, how often. Bucket
// decorates an objstore.Bucket with them, for tests within one process; s3server puts them on the
// wire, for real processes. Rules can be replaced while reads run. What runs goes on as it began:
// healing a bucket does not wake a body that stalled.
//
// Errors are those of objstore's S3 client, unwrapped: IsObjNotFoundErr and IsAccessDeniedErr know
// them as they know real ones, and know none that was wrapped on the way, as real clients do not.
//
// # Goroutines, bytes and locks
//
// There is no goroutine. What waits (an answer that never comes, a stalled body) ends with its
// context, a body also with Close. Bytes are the caller's; a flipped bit is flipped in its buffer.
// Faults.mu guards rules, counts and the random source, and is held while Rule.Match is called, not
// while anything waits.
package faultstore
