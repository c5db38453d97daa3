package bytecache_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/bytecache"
	"larder/internal/bytecache/bytecachetest"
	"larder/internal/memcached"
	"larder/internal/memcached/memcachedtest"
)

// clients makes clients of one memcached that do not see one another's values.
type clients struct {
	server *memcachedtest.Server
	n      atomic.Int64
}

func (c *clients) open(t testing.TB) *memcached.Client {
	t.Helper()
	client, err := memcached.New(memcached.Options{
		Addresses: []string{c.server.Addr},
		Namespace: fmt.Sprintf("suite%d:", c.n.Add(1)),
		// What is tested is what it says, not in what time.
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
		return bytecache.NewMemcached(c.open(tb))
	})
}

func TestTieredConforms(t *testing.T) {
	c := &clients{server: memcachedtest.Start(t, memcachedtest.Options{})}
	traits := bytecachetest.Traits{Keeps: true, Remote: true}
	bytecachetest.Run(t, traits, func(tb testing.TB, maxBytes int64) bytecache.Cache {
		return bytecache.Open(bytecache.Options{MaxBytes: maxBytes, ExpectedValueBytes: 256}, c.open(tb))
	})
}

// TestTieredFillsMemory: what another process has stored is in memory once it was asked for.
func TestTieredFillsMemory(t *testing.T) {
	client := (&clients{server: memcachedtest.Start(t, memcachedtest.Options{})}).open(t)
	key := bytecache.Key{Local: 7, ID: bytecache.ID{1}}
	bytecache.NewMemcached(client).Set(key, []byte("value"))
	c := bytecache.NewTiered(bytecache.NewMemory(bytecache.Options{}), bytecache.NewMemcached(client))
	defer c.Close()
	if _, ok := c.Get(key.Local); ok {
		t.Error("it is in memory before anybody asked")
	}
	values := make([][]byte, 1)
	c.Fetch(t.Context(), []bytecache.Key{key}, values)
	if near, ok := c.Get(key.Local); string(values[0]) != "value" || !ok || string(near) != "value" {
		t.Errorf("Fetch: %q, then Get: %q, %v", values[0], near, ok)
	}
	if near, far := c.Stats(), c.RemoteStats(); near.Items != 1 || far.Requests != 1 || far.Hits != 1 {
		t.Errorf("memory %+v, memcached %+v", near, far)
	}
}
