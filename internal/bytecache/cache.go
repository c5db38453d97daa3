package bytecache

import "context"

// ID identifies a value in every process. Two values never share one.
type ID = [32]byte

// Key identifies a value.
type Key struct {
	// Local identifies it within this process.
	//
	// INVARIANT: two values of a cache never share a Local.
	Local uint64
	// ID identifies it outside of the process. Caches within the process ignore it.
	ID ID
}

// Cache is the interface of all caches in this package.
type Cache interface {
	// Get returns a value from the process's memory. It does not wait or allocate.
	Get(local uint64) ([]byte, bool)
	// Fetch sets the values that are nil and that it finds. It is for keys that Get has missed, and
	// does not count another miss in memory. It may wait for servers outside of the process, for a
	// bounded time, and requests all keys at once. Every problem is a miss. After it returns, it
	// does not touch values.
	Fetch(ctx context.Context, keys []Key, values [][]byte) Found
	// Remote reports whether Fetch may find values that Get does not.
	Remote() bool
	// Set keeps a value, or refuses it. The cache owns the value from the call on.
	Set(key Key, value []byte)
	// Del removes a value. A look-up that starts after Del has returned does not find it, and the
	// next Set of the key is accepted.
	Del(key Key)
	Stats() Stats
	// Close releases the memory of the cache. Concurrent and later calls are harmless.
	Close()
}

// Found counts the values that a Fetch found in memory, because they were set after Get had missed
// them, and on a disk. It found the others outside of the machine.
type Found struct {
	MemoryItems, MemoryBytes int64
	DiskItems, DiskBytes     int64
}

// Disk is a cache on a local disk: *diskcache.Cache.
type Disk interface {
	Cache
	// Keep is Set of a value that was used a second time. hot means that several requests use it.
	Keep(key Key, value []byte, hot bool)
}

// Open returns a cache with memory unless o.MaxBytes is negative, with disk unless it is nil, and
// with remote unless it is nil. The cache closes disk.
func Open(o Options, disk Disk, remote Remote) Cache {
	if disk != nil {
		below := []Cache{disk}
		if remote != nil {
			below = append(below, NewMemcached(remote, o))
		}
		if o.MaxBytes < 0 {
			return NewTiered(nil, below...)
		}
		return NewTiered(NewMemory(o), below...)
	}
	switch {
	case o.MaxBytes < 0 && remote == nil:
		return None{}
	case o.MaxBytes < 0:
		return NewMemcached(remote, o)
	case remote == nil:
		return NewMemory(o)
	}
	return NewTiered(NewMemory(o), NewMemcached(remote, o))
}
