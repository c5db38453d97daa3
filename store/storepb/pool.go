package storepb

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/mem"
)

const (
	// minTier is the smallest buffer: grpc pools no buffer of 1 KiB or less, so a smaller one could
	// only be used once.
	minTier = 11
	// maxTier is the largest buffer that is kept. INVARIANT: MaxFrameBytes == 1<<maxTier.
	maxTier = 20
)

// FramePool lends the buffers that frames are written to, in powers of two from 2 KiB to 1 MiB.
// Larger ones are made for the occasion and not kept.
//
// It differs from grpc's own pools in two ways. It has a size for every power of two, where grpc's
// default goes from 32 KiB straight to 1 MiB. And Get does not clear what it returns, because a
// frame's writer overwrites every byte it sends.
//
// It is safe for concurrent use. The zero value is not ready; see NewFramePool.
type FramePool struct {
	tiers  [maxTier - minTier + 1]sync.Pool
	poison bool
}

var _ mem.BufferPool = (*FramePool)(nil)

// NewFramePool makes a pool. One per process is enough. In builds with the race detector it poisons
// what comes back, so that reading a frame after its release shows as wrong bytes.
func NewFramePool() *FramePool {
	return &FramePool{poison: raceEnabled}
}

// poisonByte begins no valid message: its wire type does not exist.
const poisonByte = 0xdf

// Get lends a buffer of the given length. Its content is anything.
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

// Put takes back a buffer that Get lent. Nobody may touch it afterwards.
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

// tierFor is the exponent of the smallest buffer that holds n bytes.
func tierFor(n int) int {
	if n <= 1<<minTier {
		return minTier
	}
	return bits.Len(uint(n - 1))
}
