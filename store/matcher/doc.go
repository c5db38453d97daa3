// Package matcher turns the matchers of a request into Prometheus matchers.
//
// Parse compiles the regular expressions of one request, or takes them from a Cache. Every
// expression is measured before it is compiled, because a few bytes of text can compile to hundreds
// of megabytes. A Budget reserves what the request needs in the account of request messages
// (package intake), and rejects a request that does not fit. Package store adds gRPC codes, decodes
// hints and chooses blocks.
//
// # What it owns
//
// A Budget belongs to one request. It covers the decoded message and what its expressions compile
// to, from before the request has its turn until the request ends. Matchers are immutable and
// garbage collected. The Cache holds at most 64 KiB per entry on average. These bytes are not in
// the account. A request also reserves what its cached expressions need, because its outcome must
// not depend on the cache.
//
// # How an expression is compiled
//
// A list such as a|b|c is neither parsed nor compiled. For any other expression, estimate tells
// from the text what parsing and compiling needs meanwhile, and that is reserved. The expression is
// then parsed, and measure counts its ranges, repetitions and groups. What they need is reserved
// too. Only then is the expression compiled. The temporary part is released afterwards.
//
// # Locks
//
// Cache.mu guards the entries. It is never held while compiling, and no other lock is taken under
// it. The place for compiling a large expression is a channel. Its holder waits for nothing but a
// core. docs/locks.md has all locks of the process.
//
// # Accepted risks
//
// Bytes per character, range and repetition are measured, not proven, because neither regexp nor
// Prometheus tells what it allocates. Another version may need more. The tests compare the cost of
// typical expressions with what they allocate.
//
// The temporary memory of a large expression is not in the account, because it may exceed the
// account. Therefore only one is compiled at a time, and one that needs more than twice the account
// is rejected. Requests with large expressions wait for each other, until they are cancelled or
// their deadline passes. Other requests do not wait.
//
// Two requests that miss the Cache compile the same expression twice. This is accepted because each
// has reserved its own bytes.
package matcher
