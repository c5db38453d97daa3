package main

import (
	"fmt"
	"runtime"

	"github.com/maypok86/otter/v2"

	"larder/internal/bytecache"
)

// cache is a candidate.
type cache interface {
	Get(key uint64) ([]byte, bool)
	Set(key uint64, value []byte)
	Del(key uint64)
	// settle waits until all set values are applied.
	settle()
	close()
}

// entryOverhead is the cost that every candidate adds to a value, the same as in bytecache. Their
// real memory is measured.
const entryOverhead = 224

// candidate makes a cache of maxBytes.
type candidate struct {
	name string
	make func(maxBytes int64) cache
	// exact candidates decide at once: their result does not depend on the pace.
	exact bool
}

func candidates() []candidate {
	return []candidate{
		{name: "ristretto", make: newRistretto},
		{name: "otter", make: newOtter},
		{name: "LRU", make: func(n int64) cache { return newLRU(n, 0) }, exact: true},
		{name: "LRU, second miss",
			make:  func(n int64) cache { return newLRU(n, int(n/(pageSize+entryOverhead))) },
			exact: true},
		{name: "S3-FIFO", make: newS3FIFO, exact: true},
	}
}

// ristrettoCache is larder's own cache: ristretto inside bytecache.
type ristrettoCache struct{ m *bytecache.Memory }

func (c ristrettoCache) Get(key uint64) ([]byte, bool) { return c.m.Get(key) }
func (c ristrettoCache) Set(key uint64, value []byte)  { c.m.Set(bytecache.Key{Local: key}, value) }
func (c ristrettoCache) Del(key uint64)                { c.m.Del(bytecache.Key{Local: key}) }

func newRistretto(maxBytes int64) cache {
	return ristrettoCache{bytecache.NewMemory(
		bytecache.Options{MaxBytes: maxBytes, ExpectedValueBytes: pageSize})}
}

func (c ristrettoCache) close() { c.m.Close() }

// settle: one value always stays pending, see bytecache.
func (c ristrettoCache) settle() {
	for c.m.Stats().PendingBytes > pageSize+entryOverhead {
		runtime.Gosched()
	}
}

// otterCache is plain otter.
type otterCache struct {
	*otter.Cache[uint64, []byte]
}

func newOtter(maxBytes int64) cache {
	c, err := otter.New(&otter.Options[uint64, []byte]{
		MaximumWeight: uint64(maxBytes),
		Weigher: func(_ uint64, value []byte) uint32 {
			return uint32(len(value) + entryOverhead)
		},
	})
	if err != nil {
		// The options are constant but for the size.
		panic(fmt.Sprintf("otter refuses its options: %v", err))
	}
	return otterCache{c}
}

func (c otterCache) Get(key uint64) ([]byte, bool) { return c.GetIfPresent(key) }

// Set does not replace a present key, same as bytecache.
func (c otterCache) Set(key uint64, value []byte) { c.SetIfAbsent(key, value) }

func (c otterCache) Del(key uint64) { c.Invalidate(key) }
func (c otterCache) settle()        { c.CleanUp() }
func (c otterCache) close()         { c.StopAllGoroutines() }
