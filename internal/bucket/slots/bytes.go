package slots

import "context"

// Bytes bounds the bytes of concurrent reads. Reads wait for them in the same order as for the
// slots of a Limiter. It is safe for concurrent use.
type Bytes struct {
	gate gate
}

// NewBytes returns max bytes, all of them free.
func NewBytes(max int64) *Bytes { return &Bytes{gate: gate{capacity: max}} }

// AcquireFor acquires n bytes for r. A read of more bytes than there are has all of them. It waits
// until ctx ends, and returns the error of ctx then. It returns how many to release.
func (b *Bytes) AcquireFor(ctx context.Context, r *Read, n int64) (int64, error) {
	n = min(n, b.gate.capacity)
	return n, b.gate.acquire(ctx, r, n)
}

// Release releases n bytes.
func (b *Bytes) Release(n int64) { b.gate.release(n) }
