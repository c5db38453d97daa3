// Package memcached is a client of a set of memcached servers. It reads and writes values under
// 32-byte IDs, and treats every problem of a server as a cache miss. Make a Client with New, read
// with GetMulti, write with Set and Delete, and end it with Close. A look-up takes no longer than
// its deadline, and a caller never waits for a write. A value that is returned is, byte for byte,
// the value that was stored under that ID.
//
// A server that is dead, hangs, is slow or sends wrong data costs the calls that are running their
// deadline. After that it costs one look-up per period of its breaker.
//
// # How a look-up runs
//
// IDs whose write is pending are answered from the queue. The other IDs are grouped by server
// (rendezvous hashing) and cut into batches, which run in parallel, at most MaxGetMultiConcurrency
// at a time. Only the caller's goroutine writes to the caller's values: a batch sends its values
// over a channel, and they are dropped if the caller has returned. A batch continues after its
// caller gives up, until its deadline at most, because a connection with half a reply on it would
// have to be closed.
//
// # gomemcache, and what this package adds to it
//
//   - It knows no context, and renews its deadline with every value: twenty values of 80 ms each
//     took 1.6 s with a timeout of 100 ms. Here each connection has a gomemcache client of its own
//     (lane), used by one goroutine at a time, over a conn that keeps the deadline of the
//     operation.
//   - It cancels a dial at the deadline and starts a new one the next time. Here a dial continues
//     and its connection is kept. With a read deadline of a few milliseconds, a TLS handshake would
//     never complete otherwise.
//   - It allocates the size that a reply announces, up to 4 GiB, and accepts any number of values.
//     The process could not survive that: the Go runtime ends a process that is out of memory. Here
//     a reply is checked before gomemcache sees it (reply.go). It may contain only values of
//     requested keys, each once, none larger than MaxItemSize. Therefore a connection reserves
//     memory for at most one announced value of that size. A larger value, stored by a client with
//     another limit, is a miss.
//   - It reuses a connection that received more than was requested. Here a connection is reused
//     only after exactly one complete reply.
//   - A connection that went stale while idle fails, and so does the next one. Here all older
//     connections are closed with it. A read counts it as a miss; a write is repeated.
//   - It keeps idle connections for ever. Here they are closed after a minute.
//   - It does not report that a server is dead. Here each server has two breakers (breaker.go).
//   - Its ServerList moves most keys when a server is added or removed, and resolves names once.
//     Here a removed server moves only its own keys, and names are resolved periodically.
//
// # Values
//
// A value carries a version, a checksum and its own ID (envelope.go). A reply to another request, a
// damaged or truncated value, and a value of another program or version are misses, counted as
// corrupt. Therefore a lost Delete, or a Set that a server applies after it timed out, does no
// harm.
//
// # Ownership of bytes
//
// A value passed to Set belongs to the client until it is written, and must not change. A value
// that GetMulti returns may be shared with the caller of Set while its write is pending, and must
// not be written to. It keeps no memory alive but its own. Pending values are bounded in number and
// in bytes. The memory of a look-up is bounded by what its caller requests.
//
// # Locks and goroutines
//
// LOCKING: queue.mu guards the pending writes. lanes.mu guards the idle connections to one server
// in one direction. The mutex of a breaker guards its state. Client.life is held shared while
// batches are started, and exclusively by Close. None is held while another is taken. Look-ups of
// pending values call back with queue.mu held; the callback only writes to the caller's slice.
//
// MaxAsyncConcurrency goroutines write, one resolves names, and each batch and each dial has one.
package memcached
