package diskcache

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"larder/internal/bytecache"
	"larder/internal/bytecache/bytecachetest"
	"larder/internal/localfs"
	"larder/internal/memcached"
	"larder/internal/memcached/memcachedtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openDisk opens the disk of a directory. Its look-ups wait long enough on any machine: the tests
// check answers, not how long they take.
func openDisk(tb testing.TB, dir string, change func(*DiskOptions)) *Disk {
	tb.Helper()
	o := DiskOptions{
		Dir: localfs.At(dir, "disk"), Timeout: time.Minute, WriteRate: 1 << 40, MinFreeBytes: 1,
	}
	if change != nil {
		change(&o)
	}
	d := OpenDisk(o)
	tb.Cleanup(d.Close)
	return d
}

func TestDiskConforms(t *testing.T) {
	traits := bytecachetest.Traits{Keeps: true, Remote: true}
	open := func(tb testing.TB, maxBytes int64) *Cache {
		d := openDisk(tb, tb.TempDir(), nil)
		d.gather = 0
		return d.Open(Options{MaxBytes: maxBytes})
	}
	t.Run("Queued", func(t *testing.T) {
		bytecachetest.Run(t, traits, func(tb testing.TB, maxBytes int64) bytecache.Cache {
			return open(tb, maxBytes)
		})
	})
	t.Run("Written", func(t *testing.T) {
		bytecachetest.Run(t, traits, func(tb testing.TB, maxBytes int64) bytecache.Cache {
			return onDisk{open(tb, maxBytes)}
		})
	})
}

// onDisk looks up what has been written only.
type onDisk struct{ *Cache }

func (c onDisk) Fetch(
	ctx context.Context, keys []bytecache.Key, values [][]byte,
) bytecache.Found {
	written(c.Cache)
	return c.Cache.Fetch(ctx, keys, values)
}

func TestTieredConforms(t *testing.T) {
	traits := bytecachetest.Traits{Keeps: true, Remote: true}
	f := func(name string, remote func(testing.TB) bytecache.Remote) {
		t.Run(name, func(t *testing.T) {
			bytecachetest.Run(t, traits, func(tb testing.TB, maxBytes int64) bytecache.Cache {
				return bytecache.Open(
					bytecache.Options{MaxBytes: maxBytes, ExpectedValueBytes: 256},
					openDisk(tb, tb.TempDir(), nil).Open(Options{MaxBytes: maxBytes}), remote(tb),
				)
			})
		})
	}
	f("Disk", func(testing.TB) bytecache.Remote { return nil })
	server, n := memcachedtest.Start(t, memcachedtest.Options{}), 0
	f("DiskAndMemcached", func(tb testing.TB) bytecache.Remote {
		n++
		client, err := memcached.New(memcached.Options{
			Addresses: []string{server.Addr}, Namespace: fmt.Sprintf("suite%d:", n),
			Timeout: 30 * time.Second, MinReadTimeout: 30 * time.Second,
			MaxAsyncBufferSize: 1 << 20, MaxAsyncBufferBytes: 1 << 30,
		})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(client.Close)
		return client
	})
}
