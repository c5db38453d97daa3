// Package hedge sends a second request when a bucket is slow to answer the first one, and uses the
// answer that comes first.
//
// Bucket decorates an object store client. A read is hedged in two cases:
//
//   - Its first byte is later than nearly all recent first bytes: the same request is sent again.
//   - Its body stalls: the missing bytes are requested from the offset that was reached. No byte is
//     delivered twice.
//
// The request that loses is cancelled and closed. The caller sees one read with one body, and the
// client's own errors unwrapped, because some clients do not recognise their own error once it is
// wrapped.
//
// # When a read is not hedged
//
// An extra request makes a struggling bucket worse. Extra requests are therefore limited to 5 % of
// all requests. They run only in a spare read slot, and never wait for one. None is sent while
// recent requests fail, or while many reads are late at once, because then the whole bucket is
// slow. None is sent before enough first bytes were seen to know what late means.
//
// # What is hedged
//
// Ranges are hedged, because they belong to immutable files. Whole objects (meta.json, marks) may
// be replaced between two requests. Their first byte is hedged, but a stalled body is never
// continued by another request.
//
// A stalled body is abandoned by cancelling its context. The clients of S3, GCS, AZURE, COS and OCI
// heed it. A body of any other client, or of a file, keeps blocking its reader, hedged or not. Slow
// first bytes are hedged for all clients.
//
// # Ownership of bytes
//
// A caller's buffer is passed to the body of one request at a time. Only the request that replaces
// a stalled one reads into a buffer of its own, 64 KiB, until it is known to be ahead.
//
// # Goroutines and locks
//
// One goroutine opens each request, so that a client that ignores its context cannot delay an
// answer. It ends when the client returns. Bodies are read on the caller's goroutine. read.mu
// guards the state of one read, and is never held while the client or a callback runs or while
// waiting. All reads share the budget, the learned times and the recent results, which are atomics.
package hedge
