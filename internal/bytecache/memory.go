package bytecache

// Memory is a cache of bytes in the heap. It is safe for concurrent use; make
// it with NewMemory.
type Memory struct{ *Values[[]byte] }

// NewMemory returns an empty cache.
func NewMemory(o Options) *Memory { return &Memory{NewValues[[]byte](o)} }

// Set keeps a value, unless its key is present, it is too large, or the
// admission policy refuses it later. The cache owns the value from here on. It
// may wait for values set before to be applied.
func (m *Memory) Set(key uint64, value []byte) { m.Values.Set(key, value, int64(len(value))) }
