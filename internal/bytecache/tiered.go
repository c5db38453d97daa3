package bytecache

import "context"

// Tiered is a Memory in front of a Memcached: a value found in memcached is kept in memory. It is
// safe for concurrent use.
type Tiered struct {
	memory *Memory
	remote *Memcached
}

var _ Cache = (*Tiered)(nil)

// NewTiered returns a cache of both. It closes them.
func NewTiered(memory *Memory, remote *Memcached) *Tiered {
	return &Tiered{memory: memory, remote: remote}
}

// Get looks in memory.
func (t *Tiered) Get(local uint64) ([]byte, bool) { return t.memory.Get(local) }

// Fetch looks in memory, then requests the rest from memcached, all at once, and keeps the values
// found in memory.
func (t *Tiered) Fetch(ctx context.Context, keys []Key, values [][]byte) {
	t.memory.Fetch(ctx, keys, values)
	missing := make([]int, 0, len(keys))
	for i := range keys {
		if values[i] == nil {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return
	}
	t.remote.Fetch(ctx, keys, values)
	for _, i := range missing {
		if values[i] != nil {
			t.memory.Set(keys[i], values[i])
		}
	}
}

// Remote returns true.
func (t *Tiered) Remote() bool { return true }

// Set stores a value in both.
func (t *Tiered) Set(key Key, value []byte) {
	t.memory.Set(key, value)
	t.remote.Set(key, value)
}

// Del removes a value from both, from memcached first, because a value found there is kept in
// memory.
func (t *Tiered) Del(key Key) {
	t.remote.Del(key)
	t.memory.Del(key)
}

// Stats returns the counts of the memory.
func (t *Tiered) Stats() Stats { return t.memory.Stats() }

// RemoteStats returns the counts of look-ups in memcached.
func (t *Tiered) RemoteStats() Stats { return t.remote.Stats() }

// Close closes both.
func (t *Tiered) Close() {
	t.remote.Close()
	t.memory.Close()
}
