package bytecache

import "context"

// None is a cache that keeps nothing.
type None struct{}

var _ Cache = None{}

// Get misses.
func (None) Get(uint64) ([]byte, bool) { return nil, false }

// Fetch finds nothing.
func (None) Fetch(context.Context, []Key, [][]byte) Found { return Found{} }

// Remote returns false.
func (None) Remote() bool { return false }

// Set does nothing.
func (None) Set(Key, []byte) {}

// Del does nothing.
func (None) Del(Key) {}

// Stats returns zeros.
func (None) Stats() Stats { return Stats{} }

// Close does nothing.
func (None) Close() {}
