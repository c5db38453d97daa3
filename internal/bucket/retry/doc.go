// Package retry repeats requests to a bucket that failed in a way that may pass,
// and continues bodies that broke.
//
// Bucket decorates an object store client. What its callers see is one operation
// that took longer: a request that failed, or was not answered, is sent again; a
// range whose body broke, ended early or stalled is continued by a request for
// what is missing. Bytes that were delivered are not delivered again. Errors
// come out as the client made them, because some clients do not recognise their
// own error once it is wrapped; only what is given up after several requests is
// an *Error, which says how many, and which this package's IsObjNotFoundErr and
// IsAccessDeniedErr look through.
//
// # How long
//
// Until the deadline of the caller's context, with growing, spread pauses. An
// operation whose context has none is given up some time after its first fault.
// What repeating cannot help is returned at once: a missing object, access
// denied, what is wrong with the request itself (4xx), a panic of the client.
//
// # The budget
//
// Requests that fail again are pure load for a bucket in trouble, and a gateway
// has hundreds of reads that would all repeat theirs. So a repetition takes a
// token. Each operation earns a tenth of one, so that over time at most 10 % of
// requests are wasted; a repetition that brings what was asked for gives its
// token back, because that one was not wasted: a bucket that fails one request in
// three is answered around, one that fails all is asked a tenth more. Without a
// token an operation waits for one as it waits for its next turn, within its
// deadline: when the bucket is back the first token goes round. A few dozen tokens
// are kept for later, and one a second comes by itself, because an operation in
// an otherwise idle process earns nothing, and must survive a fault of a minute
// too.
//
// # What is continued
//
// Ranges: they are of files that do not change. Whole objects (meta.json,
// marks) may be written anew between two requests: they are read to their end
// before their first byte is delivered, and read anew if that fails; objects
// beyond 1 MiB are delivered as they come after that, and break with their body. What
// is held of all objects together has a bound, Options.WholeBytes: beyond it they are
// delivered as they come, too.
// A listing goes on after the last name it delivered, as long as the names came
// in ascending order; else it fails. A listing of a file system that fails because
// a folder was deleted meanwhile is repeated: nothing that it asked for is missing.
//
// # Clients that heed no context
//
// All that is asked of the client runs on a goroutine of its own, one for each
// request, and bodies are read into its buffer. So nothing that the client does
// not answer holds up the caller; that goroutine ends when the client returns.
//
// # Who owns which bytes
//
// An attempt's buffer, 64 KiB from a pool, belongs to its goroutine while a Read
// of the body runs and to the reader of the body between Reads. The caller's own
// buffer is never passed to the client.
//
// # Locks
//
// budget.mu guards its numbers. All else belongs to one goroutine at a time or
// goes through channels.
package retry
