// Package bytecache holds byte caches with one interface, Cache. Memory keeps values in the heap,
// up to a fixed size, under exact 64-bit keys. Memcached keeps them outside of the process, under
// IDs that all processes share. Tiered is a Memory in front of other tiers: a Disk (package
// diskcache), a Memcached, or both. None keeps nothing. Open chooses among them. Values is the core
// of Memory for values of any type with a size. Package bytecachetest is the conformance suite that
// all of them pass.
//
// # Contract of a cache
//
// Every Get of a key returns the value that was set, until the cache drops it. A cache may drop any
// value at any time, and refuse any value. Values are immutable: Set of a present key does nothing.
// (Memcached may replace the value of a present key: both stand for the same content.) Two keys are
// never confused. After Close, every look-up is a miss.
//
// The client of memcached verifies that a value was set under its ID. Whether it equals the
// contents of the bucket is for the decoder to verify, the same as for bytes of the bucket itself.
// Del removes values that fail.
//
// # Ownership of bytes
//
// Values are kept and returned by reference, never copied. The caller of Set must not write to the
// value afterwards, and the caller of Get must not write to it at all. A value should own its
// memory: a small slice of a large array keeps the whole array alive. Memory accounts for the size
// that the allocator uses for the capacity of a value (sizeclass.go).
//
// # Values, and what it adds to ristretto
//
// Values uses ristretto for its admission policy: with TinyLFU a page that is rarely read does not
// evict a page that is often read. Values keeps the table of values itself, and ristretto decides
// which of them stay. Values closes these gaps of ristretto:
//
//   - Its policy knows how often a value was used, not when. It halves its counts periodically,
//     admits values that tie with the least wanted, and evicts any of several equal ones. Therefore
//     pages that were read a few times long ago stay while pages that are read now are evicted, and
//     a scan during a halving is admitted. Here values start in a queue, a tenth of the cache. They
//     reach ristretto only if they were requested a second time, not directly after they were set,
//     or while there is free space. benchmarks/eviction measures the gain.
//   - A set value is invisible until a background goroutine has applied it. Here it is in the table
//     at once, until it is rejected or evicted.
//   - Up to 32,768 values wait unaccounted in its buffer, and a Set that finds the buffer full is
//     lost. Here pending values have a limit in bytes, which is part of MaxBytes. A Set above the
//     limit waits until the buffer is applied, which takes microseconds per value.
//   - An update does not evict. Here a present key is never set again.
//   - A value above the total cost is dropped silently. Here the size is checked and a refusal
//     counted.
//   - Set, Get and Del during Close can panic. Here every call into ristretto is made under a
//     shard's lock after checking that the cache is open, and Close marks all shards before it
//     closes ristretto.
//   - It stores no keys, and hashes of 64 bits without a check if its keys are integers. Here its
//     key is the image of the key under a bijection of 64 bits. Its tables use all 64 bits, so two
//     keys never collide, and the low bits, which select a shard and counters, are spread evenly.
//   - In a burst of look-ups it drops most of them, and with them the hot keys. Here they are
//     logged per shard and passed on at the rate at which ristretto counts.
//   - Its deletion waits for a channel that its own goroutine empties, and that goroutine takes a
//     shard's lock. Here deletion is called without a shard's lock, after the value has left the
//     table.
//
// # Locks
//
// LOCKING: shard.mu guards a shard's table, entries, log and counters, and orders calls into
// ristretto before Close. recent.mu guards the queue of recent values, and is held by the Set that
// passes values from the queue to ristretto. Values.life is held shared while such a Set, or a Del,
// waits for ristretto, and exclusively by Close. Order: recent.mu, life, shard.mu. A goroutine that
// waits for ristretto holds no shard.mu, because ristretto's goroutine takes it; it takes no other
// lock.
//
// Values has one goroutine of its own, count, besides ristretto's two.
package bytecache
