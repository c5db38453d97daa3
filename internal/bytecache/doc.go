// Package bytecache holds byte caches behind one interface, Cache: Memory, which
// keeps values in the heap, up to a fixed size, under exact 64-bit keys;
// Memcached, which keeps them outside of the process, under identities that all
// processes share; Tiered, which is a memory over memcached; and None.
// Values is Memory's core for values that are not bytes but take some.
// Package bytecachetest is the conformance suite that every one of them passes.
//
// # What a cache promises
//
// A value, once set, is what every Get of its key returns until the cache
// forgets it; it may forget any value at any time, and refuse any. Values are
// immutable: Set of a key that is present does nothing. Two keys are never
// taken for one another. After Close, everything is a miss. (Memcached may take
// another value for a present key: both are what the key stands for.)
//
// What a remote tier returns has been checked to be what was set under that
// identity, by the client. Whether that is what the bucket holds is for whoever
// decodes it to verify, as with bytes of the bucket itself; Del is for those that
// are not.
//
// # Who owns which bytes
//
// Values are kept and returned by reference, never copied: whoever sets one
// gives up writing to it, and whoever gets one must not write to it. It should
// own its memory: a small slice of a large array keeps all of the array. A Memory
// takes a value for what the allocator has given for its capacity (sizeclass.go).
//
// # Values, and what ristretto leaves to do
//
// Values stands on ristretto, whose admission policy is why it is here: under
// TinyLFU a page that is read seldom does not displace one that is read often.
// Values keeps the table of values itself; ristretto decides what may stay in
// it. What ristretto leaves to its user is done here:
//
//   - It knows how often, not when. It halves its counts every so often, takes
//     in what ties with the least wanted, and among equals drops any: pages read
//     a few times and long ago stay while those read now go, and a scan that
//     meets a halving gets in. Here values begin in a queue, a tenth of the
//     whole, and reach ristretto only when they were asked for a second time, not
//     right after they were set, or while there is room. benchmarks/eviction
//     measures what that is worth.
//   - A set value is invisible until a background goroutine has applied it. Here
//     it is in the table at once, until it is rejected or evicted.
//   - Up to 32,768 values wait unaccounted in its buffer, and a Set that finds
//     it full is lost. Here pending values have a bound in bytes, which is part
//     of MaxBytes; a Set that finds no room waits until the buffer has been
//     applied, which takes microseconds a value.
//   - An update does not evict. Here a present key is never set again.
//   - A value above the whole cost is dropped without a trace. Here the size is
//     checked, and the refusal counted.
//   - Set, Get and Del during Close can panic. Here every call into ristretto is
//     made under a shard's lock after looking whether the cache is closed, and
//     Close marks all shards before it closes ristretto.
//   - It keeps no keys, and hashes of 64 bits without a check where it is given
//     integers. Here what it is given is the image of the key under a bijection
//     of 64 bits. Its tables are keyed by all 64, so two keys never meet, and
//     the low bits, by which it picks a shard and counters, are spread.
//   - In a burst of look-ups it forgets most of them, and with them what is hot.
//     Here they are logged per shard and told to it at the pace it counts at.
//   - Its deletion waits on a channel that its own goroutine empties, which takes
//     a shard's lock. Here it is asked for without one, after the value has left
//     the table.
//
// # Locks
//
// shard.mu guards a shard's table, entries, log and counters, and orders calls
// into ristretto before Close. recent.mu guards the queue of recent values, and
// is held by the Set that hands over to ristretto what leaves the queue.
// Values.life is held shared while that, or Del, waits for ristretto, and
// exclusively by Close. Order: recent.mu, life, shard.mu. Whoever waits for ristretto holds no
// shard.mu, because ristretto's goroutine takes it; it takes no other lock.
//
// Values has one goroutine of its own, count, besides ristretto's two.
package bytecache
