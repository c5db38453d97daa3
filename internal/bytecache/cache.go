package bytecache

import "context"

// ID is what names a value in every process: two values never share one.
type ID = [32]byte

// Key names a value.
type Key struct {
	// Local names it within this process. INVARIANT: two values of a cache
	// never share one.
	Local uint64
	// ID names it outside. Caches that stay within the process do not look at it.
	ID ID
}

// Cache is what every cache of this package is.
type Cache interface {
	// Get returns a value that is in the process's memory, at once and without
	// an allocation.
	Get(local uint64) ([]byte, bool)
	// Fetch fills in the values that are nil, as far as it finds them. It is for
	// what Get did not find: what memory misses again is not counted again. It
	// may wait for what is outside of the process, for a bounded time, and asks
	// for all that it needs at once. What cannot be had, for whatever reason, is
	// a miss. When it returns, values is the caller's again.
	Fetch(ctx context.Context, keys []Key, values [][]byte)
	// Remote reports whether Fetch may find what Get does not.
	Remote() bool
	// Set keeps a value, or refuses it. The cache owns the value from here on.
	Set(key Key, value []byte)
	// Del forgets a value. A look-up that begins after Del has returned does
	// not see it, and the next Set is taken.
	Del(key Key)
	Stats() Stats
	// Close drops what the process holds. Calls that run or come later are
	// harmless.
	Close()
}

// Open returns the cache that has the tiers asked for: memory unless
// o.MaxBytes is negative, and remote unless it is nil.
func Open(o Options, remote Remote) Cache {
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
