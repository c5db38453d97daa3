package bytecache

// None is a cache that keeps nothing.
type None struct{}

// Get misses.
func (None) Get(uint64) ([]byte, bool) { return nil, false }

// Set does nothing.
func (None) Set(uint64, []byte) {}

// Del does nothing.
func (None) Del(uint64) {}

// Stats are zero.
func (None) Stats() Stats { return Stats{} }

// Close does nothing.
func (None) Close() {}
