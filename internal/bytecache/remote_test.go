package bytecache_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"larder/internal/bytecache"
	"larder/internal/bytecache/bytecachetest"
	"larder/internal/memcached"
	"larder/internal/memcached/memcachedtest"
)

// clients makes clients of one memcached that do not see each other's values.
type clients struct {
	server *memcachedtest.Server
	n      atomic.Int64
}

func (c *clients) open(t testing.TB) *memcached.Client {
	t.Helper()
	client, err := memcached.New(memcached.Options{
		Addresses: []string{c.server.Addr},
		Namespace: fmt.Sprintf("suite%d:", c.n.Add(1)),
		// The tests check answers, not how long they take.
		Timeout: 30 * time.Second, MinReadTimeout: 30 * time.Second,
		MaxAsyncBufferSize: 1 << 20, MaxAsyncBufferBytes: 1 << 30,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func TestMemcachedConforms(t *testing.T) {
	c := &clients{server: memcachedtest.Start(t, memcachedtest.Options{})}
	traits := bytecachetest.Traits{Keeps: true, Remote: true, Unheld: true}
	bytecachetest.Run(t, traits, func(tb testing.TB, _ int64) bytecache.Cache {
		return bytecache.NewMemcached(c.open(tb), bytecache.Options{})
	})
}

func TestTieredConforms(t *testing.T) {
	c := &clients{server: memcachedtest.Start(t, memcachedtest.Options{})}
	traits := bytecachetest.Traits{Keeps: true, Remote: true}
	bytecachetest.Run(t, traits, func(tb testing.TB, maxBytes int64) bytecache.Cache {
		return bytecache.Open(bytecache.Options{MaxBytes: maxBytes, ExpectedValueBytes: 256},
			nil, c.open(tb))
	})
}

// TestMetricsOfTiers: look-ups are counted by tier; the contents of memcached are not known.
func TestMetricsOfTiers(t *testing.T) {
	client := (&clients{server: memcachedtest.Start(t, memcachedtest.Options{})}).open(t)
	reg := prometheus.NewRegistry()
	key, other := bytecache.Key{Local: 7, ID: bytecache.ID{1}},
		bytecache.Key{Local: 8, ID: bytecache.ID{2}}
	for range 2 { // a closed cache frees its names
		c := bytecache.Open(bytecache.Options{Name: "chunks", Registerer: reg}, nil, client)
		alone := bytecache.Open(bytecache.Options{MaxBytes: -1, Name: "index", Registerer: reg},
			nil, client)
		alone.Set(key, []byte("value"))
		for range 3 {
			values := make([][]byte, 2)
			values[0], _ = c.Get(key.Local)
			values[1], _ = c.Get(other.Local)
			c.Fetch(t.Context(), []bytecache.Key{key, other}, values)
		}
		if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP larder_cache_hit_bytes_total Bytes of values found.
# TYPE larder_cache_hit_bytes_total counter
larder_cache_hit_bytes_total{cache="chunks",tier="memcached"} 5
larder_cache_hit_bytes_total{cache="chunks",tier="memory"} 10
larder_cache_hit_bytes_total{cache="index",tier="memcached"} 0
# HELP larder_cache_hits_total Look-ups that found a value.
# TYPE larder_cache_hits_total counter
larder_cache_hits_total{cache="chunks",tier="memcached"} 1
larder_cache_hits_total{cache="chunks",tier="memory"} 2
larder_cache_hits_total{cache="index",tier="memcached"} 0
# HELP larder_cache_items Values held.
# TYPE larder_cache_items gauge
larder_cache_items{cache="chunks",tier="memory"} 1
# HELP larder_cache_requests_total Look-ups in the cache.
# TYPE larder_cache_requests_total counter
larder_cache_requests_total{cache="chunks",tier="memcached"} 4
larder_cache_requests_total{cache="chunks",tier="memory"} 6
larder_cache_requests_total{cache="index",tier="memcached"} 0
`), "larder_cache_hit_bytes_total", "larder_cache_hits_total", "larder_cache_items",
			"larder_cache_requests_total"); err != nil {
			t.Error(err)
		}
		c.Close()
		alone.Close()
	}
}

// TestTieredFillsMemory: a value stored by another process is in memory after it was requested.
func TestTieredFillsMemory(t *testing.T) {
	client := (&clients{server: memcachedtest.Start(t, memcachedtest.Options{})}).open(t)
	key := bytecache.Key{Local: 7, ID: bytecache.ID{1}}
	bytecache.NewMemcached(client, bytecache.Options{}).Set(key, []byte("value"))
	remote := bytecache.NewMemcached(client, bytecache.Options{})
	c := bytecache.NewTiered(bytecache.NewMemory(bytecache.Options{}), remote)
	defer c.Close()
	if _, ok := c.Get(key.Local); ok {
		t.Error("the value is in memory before a request")
	}
	values := make([][]byte, 1)
	c.Fetch(t.Context(), []bytecache.Key{key}, values)
	if near, ok := c.Get(key.Local); string(values[0]) != "value" || !ok ||
		string(near) != "value" {
		t.Errorf("Fetch: %q, then Get: %q, %v", values[0], near, ok)
	}
	if near, far := c.Stats(), remote.Stats(); near.Items != 1 || far.Requests != 1 ||
		far.Hits != 1 {
		t.Errorf("memory %+v, memcached %+v", near, far)
	}
}
