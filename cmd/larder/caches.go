package main

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/chunkcache"
	"larder/indexcache"
	"larder/internal/bytecache"
	"larder/internal/memcached"
	"larder/internal/pagecache"
)

// openIndexCache opens the index cache and, below it, its memcached.
func (b *backend) openIndexCache(bucket pagecache.Bucket, pages pagecache.Options) (*indexcache.Cache, error) {
	m := &b.conf.memory
	reader := new(atomic.Pointer[pagecache.Reader])
	remote, err := b.openMemcached("index-cache", b.conf.indexRemote, m.indexWrites, reader, pages.Registerer)
	if err != nil {
		return nil, b.conf.indexCacheYAML.wrap(err)
	}
	pages.PageSize = int(m.page[indexPages].bytes)
	c := indexcache.New(bucket, indexcache.Options{
		MaxBytes: orNone(m.kept[indexPages]), PostingsBytes: orNone(m.kept[expandedPostings]), SeriesSetBytes: orNone(m.kept[seriesSets]),
		NoPages: b.conf.withoutKinds[indexPages], NoPostings: b.conf.withoutKinds[expandedPostings],
		Remote: remote, Pages: pages,
	})
	reader.Store(c.Reader)
	b.onClose(c.Close)
	return c, nil
}

// openChunkCache opens the cache of chunks and, below it, its memcached.
func (b *backend) openChunkCache(bucket pagecache.Bucket, pages pagecache.Options) (*chunkcache.Cache, error) {
	m := &b.conf.memory
	reader := new(atomic.Pointer[pagecache.Reader])
	remote, err := b.openMemcached("caching-bucket", b.conf.chunkRemote, m.chunkWrites, reader, pages.Registerer)
	if err != nil {
		return nil, b.conf.bucketCacheYAML.wrap(err)
	}
	pages.PageSize = int(m.page[chunkPages].bytes)
	c := chunkcache.New(bucket, chunkcache.Options{MaxBytes: orNone(m.kept[chunkPages]), Remote: remote, Pages: pages})
	reader.Store(c.Reader)
	b.onClose(c.Close)
	return c, nil
}

// openMemcached opens a client that is closed after the cache over it; nil without a configuration. What reads the bucket where the
// client finds nothing, once there is one, tells it how long that takes.
func (b *backend) openMemcached(name string, conf *memcachedConfig, writes *amount, reader *atomic.Pointer[pagecache.Reader], reg prometheus.Registerer) (bytecache.Remote, error) {
	if conf == nil {
		return nil, nil
	}
	o := conf.options
	o.Name, o.Logger, o.Registerer = name, b.logger, reg
	o.MaxAsyncBufferBytes = max(writes.bytes, 1) // 0 would be the client's default
	o.FirstByte = func() time.Duration {
		if r := reader.Load(); r != nil {
			return r.FirstByteP95()
		}
		return 0
	}
	client, err := memcached.New(o)
	if err != nil {
		return nil, conf.wrap(err)
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
