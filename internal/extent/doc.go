// Package extent learns how large an object of the bucket really is, and which version of it the
// bucket holds.
//
// No checksum covers what meta.json states about the files of a block, and operators repair files
// in place. Of asks the bucket. It sends a HEAD; where that is refused it reads one byte, because
// the answer to a ranged read states the size of the whole object (Content-Range).
//
// Object store clients do not pass that header on. Therefore Transport reads it from the responses
// of a client's HTTP transport, and Stating does the same for a bucket on the local disk. Both note
// it on the context of the request: Watch makes such a context. A client with a transport of its
// own (BOS, OBS, GCS over gRPC) shows nothing; then HEAD alone answers.
//
// The package keeps no bytes. Seen.mu guards what was noted on one context.
package extent
