// Package extent learns how large an object of the bucket really is, and which version of it the
// bucket holds.
//
// No checksum covers what meta.json states about the files of a block, and operators repair files
// in place. Of therefore asks the bucket. It sends a HEAD. If the bucket rejects that, it reads one
// byte, because the answer to a ranged read states the size of the whole object (Content-Range).
//
// Object store clients do not pass that header on. Transport therefore reads it from the responses
// of a client's HTTP transport, and Stating does the same for a bucket on the local disk. Both note
// it on the context of the request, which Watch makes. A client with a transport of its own (BOS,
// OBS, GCS over gRPC) notes nothing. For it, only HEAD gives an answer.
//
// The package owns no bytes. Seen.mu guards what was noted on one context.
package extent
