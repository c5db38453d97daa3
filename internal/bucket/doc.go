// Package bucket opens the object store client of larder as one stack.
//
// Open builds the client of a provider from Thanos's bucket.yml. The stack adds what all reads
// need: verified listings, errors that name the bucket, hedged reads, metrics and retries. A read
// that fails because of a transport fault is repeated here and nowhere else, so that one budget
// bounds all retries at a bucket. The credentials of a stack can change while it is in use.
//
// # The layers of the stack
//
// A request passes these layers from the top down:
//
//   - slots.Bound, in Stack.Bound only: waits for one of the read slots. Page caches use the Stack
//     itself and acquire their slots before they read.
//   - retry: repeats a request that failed, and resumes a body that broke.
//   - metrics: thanos_objstore_bucket_*, one count for each attempt.
//   - hedge, if the configuration enables it: sends a second request when the first is slow.
//   - client: redacts errors, names the bucket in them, and replaces the provider's client when the
//     credentials change.
//   - the provider's client. Its HTTP transport verifies listings and notes the sizes of objects. A
//     FILESYSTEM bucket has fileBucket instead.
//
// # What it owns
//
// A Stack owns the current client of the provider and the secrets of its configuration. Former
// clients belong to the requests that still use them. retry and hedge own their buffers and bound
// them. A listing of a FILESYSTEM bucket holds at most 16384 entries of a folder for each level of
// folders.
//
// # Locks
//
// filePlaces.mu guards the running calls of a FILESYSTEM bucket. No call runs under it, and no
// other lock is taken under it. The current client is an atomic pointer. docs/locks.md has the
// locks of the layers below.
//
// # Accepted risks
//
// A body that is longer than its range is not repeated by the stack, because retry has delivered
// the range before it can see the rest. internal/pagecache and store/indexheader read such a range
// again.
//
// A client that was replaced is never closed, because requests may still read from it. Most types
// have nothing to close, and there is one such client per change of credentials.
//
// A call to a file system that hangs cannot be ended. It keeps a thread until it returns; at most
// 128 threads wait like that.
package bucket
