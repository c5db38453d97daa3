package bytecache

import "context"

// Memory is a cache of bytes in the heap. It is safe for concurrent use. Make it with NewMemory.
type Memory struct {
	values  *Values[[]byte]
	classes sizeClasses
}

var _ Cache = (*Memory)(nil)

// NewMemory returns an empty cache.
func NewMemory(o Options) *Memory { return &Memory{NewValues[[]byte](o), newSizeClasses()} }

// Get returns the value of a key. It does not allocate.
func (m *Memory) Get(local uint64) ([]byte, bool) { return m.values.Get(local) }

// Fetch finds values that were set since Get missed them. It never waits.
func (m *Memory) Fetch(_ context.Context, keys []Key, values [][]byte) (found Found) {
	for i, key := range keys {
		if values[i] != nil {
			continue
		}
		if b, ok := m.values.again(key.Local); ok {
			values[i] = b
			found.MemoryItems++
			found.MemoryBytes += int64(len(b))
		}
	}
	return found
}

// OnUse sets a function that is called at the first look-up of each value, and again, with asked,
// when a look-up shows that more than one request uses it. Call OnUse before the first Set. f must
// not call the cache.
func (m *Memory) OnUse(f func(local uint64, value []byte, asked bool)) { m.values.onUse = f }

// Remote returns false.
func (m *Memory) Remote() bool { return false }

// Set keeps a value, unless its key is present or it is too large. Later Sets decide whether it
// stays. The cache owns the value from the call on. Set may wait until earlier values are applied.
// It accounts for the value's capacity, rounded up as the allocator does.
func (m *Memory) Set(key Key, value []byte) {
	m.values.set(key.Local, value, int64(len(value)), m.classes.round(int64(cap(value))), false)
}

// Del removes a key.
func (m *Memory) Del(key Key) { m.values.Del(key.Local) }

// Stats returns a snapshot; its counts are not from one instant.
func (m *Memory) Stats() Stats { return m.values.Stats() }

// Close releases all values and stops the cache's goroutines.
func (m *Memory) Close() { m.values.Close() }
