// Package admission decides when a request may run and how many bytes it may hold.
//
// A Series request needs a place and bytes; a label request needs bytes only. A request gets both
// in one step from the Controller, or it waits in a queue. It starts as a small request; one that
// needs more bytes becomes large, and may have to wait again. Queues are fair: tenants take turns
// by weight, and a client address leaves places to other addresses. Limits and Limiter bound what
// one request may match, return and read.
//
// # What it owns
//
// The Controller counts places and bytes; it holds no memory of requests. The caller reserves bytes
// of its Turn before it allocates them and releases them after it has dropped them. A Turn belongs
// to one request, which closes it. The Controller keeps one entry per waiting request, and one per
// tenant and client address with waiting or running requests. A queue also remembers tenants that
// have waited recently: at most 64 more than wait now.
//
// # How a request gets its bytes
//
// Controller.Enter waits for a place and the bytes of a small request. Turn.ReserveForPlan reserves
// bytes for planning and Turn.SettleTotal those for answering. Both return at once. If the bytes
// are not free they return a *MustWait. The request then drops its plan and calls Turn.Wait, which
// releases everything, waits for a place with as many bytes as needed, and returns. The request
// plans again.
//
// INVARIANT: a request that waits here holds neither a place nor bytes. A request that holds either
// never waits here. Requests therefore wait only for running requests, and no circle can form.
// Running requests wait for reads of the bucket, which have deadlines, for work that waits only for
// such reads (headers, finding postings), and for their client.
//
// # Files
//
// controller.go has the Controller; turn.go what one request has of it; grant.go the rules by which
// requests are admitted; reject.go the errors of those that are not. fairqueue.go is the queue.
// gate.go has the options and metrics of places, allowance.go those of bytes. limits.go and
// limiter.go have the limits of tenants and of single requests, tenants.go the tenant's name.
//
// # Locks
//
// Controller.mu guards all counts, the queues and the fields of turns. It is never held while
// waiting or calling out, and no other lock is taken under it. Limits is read without a lock.
// docs/locks.md has all locks of the process.
//
// # Accepted risks
//
// Two processes whose answers one client merges can wait for each other: each has admitted the
// request that waits in the other. A process cannot see that alone, because its client merely does
// not read. The stall time-out of package store ends it.
//
// A grant scans all waiting tenants under the lock, and a full queue scans all its requests to
// choose the one to reject. Both are accepted because GateOptions.MaxWaiting bounds the queues by
// default.
//
// A client may name any tenant, because the header is not authenticated, same as in Thanos.
// Fairness between tenants therefore holds only among honest clients. Bounds by client address hold
// for all.
package admission
