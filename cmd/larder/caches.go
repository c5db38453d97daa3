package main

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/chunkcache"
	"larder/indexcache"
	"larder/internal/bytecache"
	"larder/internal/config"
	"larder/internal/memcached"
	"larder/internal/pagecache"
)

// openIndexCache opens the index cache and, below it, its memcached.
func (b *backend) openIndexCache(
	bucket pagecache.Bucket, pages pagecache.Options,
) (*indexcache.Cache, error) {
	conf, m := &b.conf.caches, &b.conf.caches.Memory
	reader := new(atomic.Pointer[pagecache.Reader])
	remote, err := b.openMemcached(
		"index-cache", conf.IndexRemote, m.IndexWrites, reader, pages.Registerer)
	if err != nil {
		return nil, b.conf.indexCacheYAML.wrap(err)
	}
	pages.PageSize = int(m.Page[config.IndexPages].Bytes)
	c := indexcache.New(bucket, indexcache.Options{
		MaxBytes:       orNone(m.CacheBytes[config.IndexPages]),
		PostingsBytes:  orNone(m.CacheBytes[config.ExpandedPostings]),
		SeriesSetBytes: orNone(m.CacheBytes[config.SeriesSets]),
		NoPages:        conf.Uncached[config.IndexPages],
		NoPostings:     conf.Uncached[config.ExpandedPostings],
		Remote:         remote, Pages: pages,
	})
	reader.Store(c.Reader)
	b.onClose(c.Close)
	return c, nil
}

// openChunkCache opens the cache of chunks and, below it, its memcached.
func (b *backend) openChunkCache(
	bucket pagecache.Bucket, pages pagecache.Options,
) (*chunkcache.Cache, error) {
	conf, m := &b.conf.caches, &b.conf.caches.Memory
	reader := new(atomic.Pointer[pagecache.Reader])
	remote, err := b.openMemcached(
		"caching-bucket", conf.ChunkRemote, m.ChunkWrites, reader, pages.Registerer)
	if err != nil {
		return nil, b.conf.bucketCacheYAML.wrap(err)
	}
	pages.PageSize = int(m.Page[config.ChunkPages].Bytes)
	c := chunkcache.New(bucket, chunkcache.Options{
		MaxBytes: orNone(m.CacheBytes[config.ChunkPages]), Remote: remote, Pages: pages,
	})
	reader.Store(c.Reader)
	b.onClose(c.Close)
	return c, nil
}

// openMemcached opens a client that is closed after the cache over it; nil without a configuration.
// What reads the bucket where the client finds nothing, once there is one, tells it how long that
// takes.
func (b *backend) openMemcached(
	name string, conf *config.Memcached, writes *config.Amount,
	reader *atomic.Pointer[pagecache.Reader], reg prometheus.Registerer,
) (bytecache.Remote, error) {
	if conf == nil {
		return nil, nil
	}
	o := conf.Options
	o.Name, o.Logger, o.Registerer = name, b.logger, reg
	o.MaxAsyncBufferBytes = max(writes.Bytes, 1) // 0 would be the client's default
	o.FirstByte = func() time.Duration {
		if r := reader.Load(); r != nil {
			return r.FirstByteP95()
		}
		return 0
	}
	client, err := memcached.New(o)
	if err != nil {
		return nil, conf.Wrap(err)
	}
	b.onClose(client.Close)
	return client, nil
}

// orNone turns a zero, which in options would be the default, into what means none there.
func orNone[T ~int | ~int64](v T) T {
	if v == 0 {
		return -1
	}
	return v
}
