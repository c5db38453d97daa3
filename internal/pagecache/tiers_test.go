package pagecache

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"larder/internal/bytecache"
	"larder/internal/bytecache/bytecachetest"
)

// filledCache is a cache into which another request puts pages after Get has missed them.
type filledCache struct {
	*bytecache.Tiered
	before func()
}

func (c filledCache) Fetch(
	ctx context.Context, keys []bytecache.Key, values [][]byte,
) bytecache.Found {
	c.before()
	return c.Tiered.Fetch(ctx, keys, values)
}

// TestPagesAreCountedByTier: a page counts as found in the tier that had it, also if another
// request has put it into memory after this one missed it there.
func TestPagesAreCountedByTier(t *testing.T) {
	const page, size = 1 << 10, 8 << 10
	f := func(name string, remote *bytecachetest.Remote) {
		t.Run(name, func(t *testing.T) {
			bucket := newTestBucket(map[string]int{"o": size})
			memory := bytecache.NewMemory(bytecache.Options{MaxBytes: 1 << 20})
			disk := &testDisk{Cache: bytecache.None{}, values: map[bytecache.ID][]byte{}}
			below, inMemcached := []bytecache.Cache{disk}, int64(0)
			if remote != nil {
				below = append(below, bytecache.NewMemcached(remote, bytecache.Options{}))
				inMemcached = 3
			}
			cache := filledCache{Tiered: bytecache.NewTiered(memory, below...)}
			defer cache.Close()
			obj, whole := remoteObject(size), content(size)
			key := func(no int64) bytecache.Key {
				k, _ := obj.cacheKey(no, 10)
				return k
			}
			value := func(no int64) []byte { return whole[no*page : (no+1)*page] }
			cache.before = func() { memory.Set(key(0), value(0)) }
			disk.Set(key(1), value(1))
			disk.Set(key(2), value(2))
			for no := range inMemcached {
				remote.Set(key(3+no).ID, value(3+no))
			}
			r := New(bucket, cache, Options{PageSize: page})
			defer r.Close()
			var acct Account
			if _, err := r.Fetch(t.Context(), obj, []Span{{0, 6 * page}}, &acct); err != nil {
				t.Fatal(err)
			}
			type counts struct{ memory, memoryBytes, below, belowBytes, disk int64 }
			want := counts{1, page, 2 + inMemcached, (2 + inMemcached) * page, 2}
			if got := (counts{acct.Hits.Load(), acct.HitBytes.Load(), acct.RemoteHits.Load(),
				acct.RemoteHitBytes.Load(), acct.DiskHits.Load()}); got != want {
				t.Errorf("of the request: got %+v, want %+v", got, want)
			}
			m := r.metrics
			wanted := [...]float64{
				1, page, 2, 2 * page, float64(inMemcached), float64(inMemcached * page),
			}
			if got := [...]float64{testutil.ToFloat64(m.hits), testutil.ToFloat64(m.hitBytes),
				testutil.ToFloat64(m.diskHits), testutil.ToFloat64(m.diskHitBytes),
				testutil.ToFloat64(m.remoteHits), testutil.ToFloat64(m.remoteHitBytes),
			}; got != wanted {
				t.Errorf("memory, disk, memcached, pages and bytes: got %v, want %v", got, wanted)
			}
		})
	}
	f("disk", nil)
	f("disk and memcached", bytecachetest.NewRemote())
}
