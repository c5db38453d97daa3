package memcached

import (
	"bytes"
	"strconv"
	"testing"

	"larder/internal/memcached/memcachedtest"
)

// BenchmarkGetMulti reads 100 pages of 8 KiB, all of them hits.
func BenchmarkGetMulti(b *testing.B) {
	f := func(name string, servers int) {
		b.Run(name, func(b *testing.B) {
			var all []*memcachedtest.Server
			for range servers {
				all = append(all, memcachedtest.Start(b, memcachedtest.Options{}))
			}
			c := client(b, Options{}, all...)
			pages := map[ID][]byte{}
			var ids []ID
			for i := range 100 {
				id := idOf(strconv.Itoa(i))
				ids = append(ids, id)
				pages[id] = bytes.Repeat([]byte{byte(i)}, 8<<10)
			}
			store(b, c, pages)
			values := make([][]byte, len(ids))
			b.SetBytes(100 * 8 << 10)
			b.ReportAllocs()
			for b.Loop() {
				clear(values)
				c.GetMulti(b.Context(), ids, values)
				for i, v := range values {
					if v == nil {
						b.Fatalf("page %d is a miss: %+v", i, c.Stats())
					}
				}
			}
		})
	}
	f("servers=1", 1)
	f("servers=4", 4)
}

// BenchmarkSet writes pages of 8 KiB as fast as memcached accepts them.
func BenchmarkSet(b *testing.B) {
	c := client(b, Options{}, memcachedtest.Start(b, memcachedtest.Options{}))
	page := bytes.Repeat([]byte{1}, 8<<10)
	b.SetBytes(int64(len(page)))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		c.Set(idOf(strconv.Itoa(i%1000)), page)
		if i++; i%500 == 0 {
			settle(b, c)
		}
	}
	settle(b, c)
	if d := c.Stats().Dropped; d != (Dropped{}) {
		b.Fatalf("dropped %+v", d)
	}
}
