// Package hedge starts a second request where a bucket is slow to answer a
// first one, and takes whichever answers.
//
// Bucket decorates an object store client. A read is hedged
//
//   - when its first byte is later than nearly all first bytes of late: the
//     same request is sent again;
//   - when its body stalls: what is missing is asked for from the offset that
//     was reached. Bytes that were delivered are not delivered again.
//
// The request that loses is cancelled and closed. What the caller sees is one
// read with one body, and the client's own errors, unwrapped: some clients do
// not recognise their own error once it is wrapped.
//
// # When a read is not hedged
//
// An extra request makes a struggling bucket worse. There are at most 5 % extra
// requests, counted over requests; they take a read slot only if one is spare,
// without waiting; none is made while recent requests fail, or while many are
// late at once: then it is the bucket that is slow and not a request. And none
// before enough first bytes were seen to know what late means.
//
// # What is hedged
//
// Ranges, which are of immutable files. Whole objects (meta.json, marks) may be
// written anew between two requests: their first byte is hedged, but a stalled
// body is never continued from another request's.
//
// A stalled body is left by cancelling its context. The clients of S3, GCS,
// AZURE, COS and OCI heed it; a body of the others (and a file) goes on
// blocking its reader, hedged or not. Slow first bytes are hedged for all.
//
// # Who owns which bytes
//
// A caller's buffer is passed to one request's body at a time. Only the request
// that replaces a stalled one reads into a buffer of its own, 64 KiB, until it
// is known to be ahead.
//
// # Goroutines and locks
//
// One goroutine opens each request, so that a client that heeds no context
// cannot hold up an answer; it ends when the client returns. Body reads run on
// the caller's. read.mu guards the state of one read and is never held while
// calling the client, a callback or waiting. What all reads share (budget,
// learned times, recent results) is atomics.
package hedge
