package shard

import (
	"encoding/binary"

	"github.com/oklog/ulid/v2"
)

// gamma is the increment of splitmix64, 2^64 divided by the golden ratio.
const gamma = 0x9e3779b97f4a7c15

// mix is the finaliser of splitmix64, a bijection whose output bits each depend on all input bits.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// score returns the weight of an ordinal for a block. key is the hash of the block's ULID.
func score(key uint64, ordinal int) uint64 {
	return mix(key + (uint64(ordinal)+1)*gamma)
}

// key returns the hash of a ULID: its two halves, read big-endian, mixed one after the other.
func key(block ulid.ULID) uint64 {
	high, low := binary.BigEndian.Uint64(block[:8]), binary.BigEndian.Uint64(block[8:])
	return mix(mix(low) ^ high)
}

// Owner returns the ordinal in [0, count) that owns a block, and -1 if count is not positive. It
// depends on nothing else, and never changes between versions of larder. It costs one hash for each
// ordinal.
func Owner(block ulid.ULID, count int) int {
	owner, highest := -1, uint64(0)
	k := key(block)
	for ordinal := range count {
		if s := score(k, ordinal); owner < 0 || s > highest {
			owner, highest = ordinal, s
		}
	}
	return owner
}
