package storepb

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/mem"
)

const (
	// minTier is the smallest buffer. grpc does not return buffers of 1 KiB or less to their pool,
	// so a smaller one could be used only once.
	minTier = 11
	// maxTier is the largest pooled buffer. INVARIANT: MaxFrameBytes == 1<<maxTier.
	maxTier = 20
)

// FramePool pools the buffers of frames, in powers of two from 2 KiB to 1 MiB. Larger buffers are
// allocated and not pooled.
//
// It differs from grpc's own pools in two ways. It has a size for every power of two, while grpc's
// default has none between 32 KiB and 1 MiB. Get does not clear the buffer, because the writer of a
// frame overwrites every byte that it sends.
//
// It is safe for concurrent use. Use NewFramePool to create one.
type FramePool struct {
	tiers  [maxTier - minTier + 1]sync.Pool
	poison bool
}

var _ mem.BufferPool = (*FramePool)(nil)

// NewFramePool returns a pool. One per process is enough. In builds with the race detector Put
// overwrites buffers, so that a read of a frame after its release sees wrong bytes.
func NewFramePool() *FramePool {
	return &FramePool{poison: raceEnabled}
}

// poisonByte cannot begin a valid message, because its wire type does not exist.
const poisonByte = 0xdf

// Get returns a buffer of the given length with arbitrary content.
func (p *FramePool) Get(length int) *[]byte {
	t := tierFor(length)
	if t > maxTier {
		b := make([]byte, length)
		return &b
	}
	if b, ok := p.tiers[t-minTier].Get().(*[]byte); ok {
		*b = (*b)[:length]
		return b
	}
	b := make([]byte, length, 1<<t)
	return &b
}

// Put returns a buffer from Get to the pool. The caller must not use it afterwards.
func (p *FramePool) Put(b *[]byte) {
	c := cap(*b)
	if p.poison {
		full := (*b)[:c]
		for i := range full {
			full[i] = poisonByte
		}
	}
	if t := tierFor(c); t <= maxTier && c == 1<<t {
		p.tiers[t-minTier].Put(b)
	}
}

// tierFor returns the exponent of the smallest buffer that holds n bytes.
func tierFor(n int) int {
	if n <= 1<<minTier {
		return minTier
	}
	return bits.Len(uint(n - 1))
}
