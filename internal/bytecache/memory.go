package bytecache

import "context"

// Memory is a cache of bytes in the heap. It is safe for concurrent use; make
// it with NewMemory.
type Memory struct {
	values  *Values[[]byte]
	classes sizeClasses
}

var _ Cache = (*Memory)(nil)

// NewMemory returns an empty cache.
func NewMemory(o Options) *Memory { return &Memory{NewValues[[]byte](o), newSizeClasses()} }

// Get returns the value of a key. It does not allocate.
func (m *Memory) Get(local uint64) ([]byte, bool) { return m.values.Get(local) }

// Fetch finds what was set since Get was asked. It never waits.
func (m *Memory) Fetch(_ context.Context, keys []Key, values [][]byte) {
	for i, key := range keys {
		if values[i] == nil {
			values[i], _ = m.values.again(key.Local)
		}
	}
}

// Remote is false.
func (m *Memory) Remote() bool { return false }

// Set keeps a value, unless its key is present or it is too large; whether for
// longer is decided when others follow. The cache owns the value from here on. It
// may wait for values set before to be applied. It costs what the allocator has
// given for it, which is taken to be the value's capacity, rounded up.
func (m *Memory) Set(key Key, value []byte) {
	m.values.set(key.Local, value, int64(len(value)), m.classes.round(int64(cap(value))), false)
}

// Del makes the cache forget a key.
func (m *Memory) Del(key Key) { m.values.Del(key.Local) }

// Stats returns a snapshot; its figures are not of one instant.
func (m *Memory) Stats() Stats { return m.values.Stats() }

// Close drops everything and stops the cache's goroutines.
func (m *Memory) Close() { m.values.Close() }
