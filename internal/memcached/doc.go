// Package memcached is the client of a set of memcached servers.
//
// # What it promises
//
// A look-up is never an error and never longer than its deadline. What it finds is, byte for byte,
// what was stored under the ID; whatever else a server sends is a miss. A server that is dead,
// hangs, is slow or lies costs those that ask at that moment their deadline, and after that one
// look-up per period of its breaker. Nobody waits for a write.
//
// # How a look-up runs
//
// IDs whose write is pending are answered from the queue. The others are sorted by server
// (rendezvous hashing), cut into batches, and asked for side by side, as far as there are turns
// (MaxGetMultiConcurrency). Only the caller's goroutine writes to the caller's values: batches hand
// theirs over a channel, and when the caller has gone nobody takes them. A batch goes on when its
// caller gives up, to its deadline at most: a connection with half a reply on it would have to be
// closed.
//
// # gomemcache, and what it leaves to do
//
//   - It knows no context, and renews its deadline with every value: twenty values of 80 ms each
//     took 1.6 s with a time-out of 100 ms. Here every connection has a gomemcache client of its
//     own (lane), used by one goroutine at a time, and lies under a conn whose deadline is the
//     operation's, whatever gomemcache sets.
//   - It dials anew each time, and gives up with the deadline. Here a dial goes on, and its
//     connection is kept: with a read deadline of a few milliseconds none would come about
//     otherwise where a TLS handshake takes longer.
//   - It allocates what a reply announces, up to 4 GiB, and takes in as many values as come. That
//     could not be survived: the Go runtime ends a process that is out of memory, and gomemcache
//     works in a goroutine of its own. Here a reply is checked as it passes, before gomemcache sees
//     it (reply.go): values of keys that were asked for, each once, none larger than MaxItemSize.
//     So a connection holds one announced value of that size at most that has not come. One that
//     somebody with another limit has stored is a miss.
//   - It reuses a connection on which more came than was asked for. Here one whole reply, and
//     nothing else, must have come.
//   - A connection that has gone stale while idle fails, and the next one does. Here all that are
//     older are closed with it, reads take it for a miss, writes are made again.
//   - It keeps idle connections for ever. Here they are closed after a minute.
//   - It gives no hint of its server being dead. Here there are two breakers per server
//     (breaker.go).
//   - Its ServerList moves most keys when a server comes or goes, and resolves names once. Here a
//     server that goes moves its own keys, and names are looked up again and again.
//
// # Values
//
// A value carries version, checksum and its own ID (envelope.go). A reply that belongs to another
// request, a value that was damaged or cut, one that another program or another version of this one
// has stored: each is a miss, and counted as corrupt. That is why a lost Delete, or a Set that a
// server applied after it had been given up, does no harm.
//
// # Who owns which bytes
//
// A value given to Set belongs to the client until it is written, and must not change. A value that
// GetMulti returns may be shared, with Set's caller where it was pending, and must not be written
// to; it keeps no memory but its own. Pending values are bounded in number and in bytes; what a
// look-up holds is bounded by what its caller asked for.
//
// # Locks and goroutines
//
// queue.mu guards the pending writes; lanes.mu the idle connections to one server in one direction;
// the mutex of a breaker its state. Client.life is held shared while batches are started and
// exclusively by Close. None is held while another is taken, but that lookups of pending values
// call back with queue.mu held, which only writes to the caller's slice. There are
// MaxAsyncConcurrency goroutines that write, one that looks names up, and one for each batch and
// each dial.
package memcached
