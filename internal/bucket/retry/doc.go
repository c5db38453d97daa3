// Package retry repeats requests to a bucket that failed in a way that may pass, and continues
// bodies that broke.
//
// Bucket decorates an object store client. Its callers see one operation that took longer. A
// request that failed, or was not answered, is sent again. A range whose body broke, ended early or
// stalled is continued by a request for the missing bytes, and no byte is delivered twice. It is
// the only place where a read of the bucket is repeated.
//
// Errors are returned as the client made them, because some clients do not recognise their own
// error once it is wrapped. Only an operation that failed after several requests returns an *Error,
// which says how many. This package's IsObjNotFoundErr and IsAccessDeniedErr look through it.
//
// # How long
//
// An operation is repeated until the deadline of the caller's context, with growing pauses of
// random length. Without a deadline it fails a while after its first fault (Options.Patience).
// Errors that a retry cannot change are returned at once: a missing object, denied access, other
// 4xx answers, a panic of the client.
//
// # The budget
//
// Repeated requests that fail again are pure load on a bucket in trouble, and a gateway has
// hundreds of reads that would all be repeated. A retry therefore needs a token. Each operation
// earns a tenth of a token, which bounds wasted requests to 10 % over time. A retry that succeeds
// refunds its token, because it was not wasted. A bucket that fails one request in three therefore
// costs time only, and one that fails all requests gets a tenth more of them.
//
// Without a token an operation waits for one in its next pauses, within its deadline, so that the
// first tokens are used as soon as the bucket is back. A few dozen tokens are saved up. One token a
// second comes by itself, because an operation in an otherwise idle process earns nothing and must
// survive a fault of a minute too.
//
// # What is continued
//
// Ranges are continued, because they belong to files that do not change. Whole objects (meta.json,
// marks) may be replaced between two requests. They are read to their end before their first byte
// is delivered, and read again from the start if that fails. Objects beyond 1 MiB are streamed
// after that, and break with their body. Options.WholeBytes bounds the memory of all of them.
// Beyond it they are streamed too.
//
// A listing continues after the last name that it delivered if the names came in ascending order,
// and fails otherwise. A listing of a file system that fails because a folder was deleted in the
// meantime is repeated: nothing that it asked for is missing.
//
// # Clients that ignore their context
//
// Every request runs on a goroutine of its own, and bodies are read into its buffer. A client that
// does not return therefore does not hold up the caller. The goroutine ends when the client
// returns.
//
// # Ownership of bytes
//
// The buffer of an attempt, 64 KiB from a pool, belongs to its goroutine while a Read of the body
// runs, and to the reader of the body between Reads. The caller's buffer is never passed to the
// client.
//
// # Locks
//
// budget.mu guards its numbers. Everything else belongs to one goroutine at a time or is passed
// through channels.
package retry
