package diskcache

import (
	"context"
	"testing"

	"larder/internal/bytecache"
)

// BenchmarkFetch reads an extent of 32 pages that lie next to each other on the disk.
func BenchmarkFetch(b *testing.B) {
	d := openDisk(b, b.TempDir(), nil)
	d.gather = 0
	c := d.Open(Options{MaxBytes: 64 << 20})
	defer c.Close()
	var keys []bytecache.Key
	for no := range uint64(32) {
		key, value := page(1, no)
		c.Set(key, value)
		keys = append(keys, key)
	}
	written(c)
	values := make([][]byte, len(keys))
	b.SetBytes(int64(len(keys)) * pageBytes)
	b.ReportAllocs()
	for b.Loop() {
		clear(values)
		if found := c.Fetch(context.Background(), keys, values); found.DiskItems != 32 {
			b.Fatalf("found %d pages, want 32", found.DiskItems)
		}
	}
}
