// Package slots bounds how many reads of the bucket run at once in the process, and decides which
// read is next.
//
// A Limiter has slots. Every read holds one while it runs. When the bucket asks for fewer requests
// (503 SlowDown, 429), the limit is halved, at most once a second, because requests on their way
// were sent under the former limit. Every answered request adds 1/limit. A round of as many answers
// as there are slots therefore adds about one slot, up to the number at the start, and while reads
// wait up to the maximum.
//
// # Which read is next
//
// A read is demand if a request waits for it, or look-ahead.
//
//   - Demand comes first. Tenants take turns, within a tenant its requests, one read a turn.
//     Therefore a read whose tenant has no other waits for at most one read of every other tenant,
//     however many they queue.
//   - Look-ahead has what is left: it never takes the last quarter of the slots, unless nothing
//     else runs. A request that arrives therefore finds free slots. Look-ahead waits in the order
//     of arrival. Nothing ages: under steady demand for more than three quarters of the slots it
//     does not run until a request needs it. This is accepted, because demand is what requests
//     wait for.
//   - A look-ahead read becomes demand when a request needs it, and never look-ahead again.
//
// The context says for whom a read is: WithRequest, LookAhead, Background, or Share for work that
// several requests may wait for. A context without any of them is demand of the process itself,
// such as the catalog's, which takes turns like a tenant. A flight of pagecache is one Read, whose
// waiters join it.
//
// Bytes has the bytes of reads in flight. Reads wait for them by the same rules.
//
// # Which callers acquire a slot
//
// pagecache acquires a slot for every flight, and hedge tries to get a spare one for an extra
// request, which the last quarter is open to. Bound acquires one for all other callers: builds of
// index headers, the catalog's sync, listings. One number therefore bounds them all.
//
// INVARIANT: a goroutine that holds a slot does not wait for another slot, nor for anything that
// waits for one.
//
// A read that waits for its next attempt is paused: it keeps its slot, which does not count.
// Otherwise a fault of one object would use up the slots of all others. It resumes without waiting.
// The limit may be exceeded by that, which is accepted because the budget of internal/bucket/retry
// bounds it.
//
// # Locks
//
// gate.mu guards the counts and the queues, of a Limiter also its limit. shared.mu guards what
// becomes demand together. Neither is taken under the other, and nothing is called or waited for
// under them.
package slots
