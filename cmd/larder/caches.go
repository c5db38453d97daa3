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

// cachesConfig has the flags and documents of caches and memory. config.Caches has the rules.
type cachesConfig struct {
	config.Caches
	indexYAML, bucketYAML content
	matchers              int // maximum number of cached matchers; 0 = none
	disk                  diskCacheConfig
}

func (c *cachesConfig) flags(f flagger) {
	m := &c.Memory
	type parser = func(string) (int64, error)
	memoryFlag := func(name, def string, a *config.Amount, parse parser, help string) {
		a.From = "--" + name
		clause := flag(f, name, def, &a.Bytes, parse, help).IsSetByUser(&a.Given)
		if def == "" {
			clause.PlaceHolder("SIZE")
		}
	}
	memoryFlag("cache-size", "", &m.Total, config.ParseSize,
		"Memory limit of all caches together: 30 % for the index cache, 62 % for chunk pages, "+
			"8 % for blocks of index headers. Limits of single caches take precedence, "+
			"the other caches share the rest. 0 = cache nothing in memory.")
	memoryFlag("index-cache-size", "250MB", &m.Index, config.ParseSize,
		"Memory limit of the index cache: 60 % for index pages, "+
			"30 % for series sets and label answers, 10 % for expanded postings. "+
			"Ignored if --index-cache.config or --index-cache.config-file is set. "+
			"0 = cache nothing in memory.")
	memoryFlag("index-cache.postings-size", "", &m.Postings, config.ParseSize,
		"Memory limit for expanded postings. Default: their share of the index cache. "+
			"0 = do not cache them.")
	memoryFlag("index-cache.series-size", "", &m.Series, config.ParseSize,
		"Memory limit for series sets and label answers. "+
			"Default: their share of the index cache. 0 = do not cache them.")
	contentFlags(f, &c.indexYAML, "index-cache.config",
		"the index cache configuration in Thanos's format, type IN-MEMORY, MEMCACHED or TIERED.")
	memoryFlag("chunk-cache-size", "", &m.Chunks, config.ParseSize,
		"Memory limit for chunk pages. "+
			"Overrides max_size of --store.caching-bucket.config and -file. "+
			"Default: 20 % of GOMEMLIMIT (set to 0.9 of the container's limit), "+
			"512MB without a limit. 0 = do not cache them in memory.")
	memoryFlag("store.request-bytes", "", &m.Requests, positive(config.ParseSize),
		"Memory limit for all requests together. Requests that do not fit wait. "+
			"Default: 25 % of GOMEMLIMIT (set to 0.9 of the container's limit), "+
			"1GB without a limit.")
	memoryFlag("index-cache.page-size", "16KB", &m.Page[config.IndexPages], config.ParsePageSize,
		"Size of the pages in which index files are read and cached: "+
			"a power of two from 1KB to 1MB.")
	memoryFlag("chunk-cache.page-size", "8KB", &m.Page[config.ChunkPages], config.ParsePageSize,
		"Size of the pages in which chunk files are read and cached: "+
			"a power of two from 1KB to 1MB.")
	hiddenContentFlags(f, &c.bucketYAML, "store.caching-bucket.config",
		"the chunk cache configuration in Thanos's format, type IN-MEMORY, MEMCACHED or TIERED.")
	c.diskCacheFlags(f)
	flag(f, "matcher-cache-size", "0", &c.matchers, integer(0),
		"Maximum number of compiled regular expressions to cache. 0 = cache none.")
}

// load reads the documents of the caches and applies them to the flags.
func (c *cachesConfig) load(now time.Time) error {
	c.ApplyFlags()
	for _, document := range []struct {
		yaml *content
		use  func(flag string, b []byte, now time.Time) error
	}{{&c.indexYAML, c.UseIndexCache}, {&c.bucketYAML, c.UseBucketCache}} {
		b, err := document.yaml.read()
		if err != nil {
			return err
		}
		if b == nil {
			continue
		}
		if err := document.use(document.yaml.flag(), b, now); err != nil {
			return document.yaml.wrap(err)
		}
	}
	return nil
}

// readerPointer is set to the reader of a cache once it is open.
type readerPointer = atomic.Pointer[pagecache.Reader]

// openIndexCache opens the index cache and its memcached.
func (b *backend) openIndexCache(
	bucket pagecache.Bucket, pages pagecache.Options,
) (*indexcache.Cache, error) {
	conf, m := &b.conf.caches, &b.conf.caches.Memory
	reader := &b.indexReader
	remote, err := b.openMemcached(
		"index-cache", conf.IndexRemote, m.IndexWrites, reader, pages.Registerer)
	if err != nil {
		return nil, conf.indexYAML.wrap(err)
	}
	pages.PageSize = int(m.Page[config.IndexPages].Bytes)
	c := indexcache.New(bucket, indexcache.Options{
		MaxBytes:      orNone(m.CacheBytes[config.IndexPages]),
		PostingsBytes: orNone(m.CacheBytes[config.ExpandedPostings]),
		NoPages:       conf.Uncached[config.IndexPages],
		NoPostings:    conf.Uncached[config.ExpandedPostings],
		Disk:          b.diskCache(config.IndexPages, "index"),
		Remote:        remote, Pages: pages,
	})
	reader.Store(c.Reader)
	b.onClose(c.Close)
	return c, nil
}

// openChunkCache opens the chunk cache and its memcached.
func (b *backend) openChunkCache(
	bucket pagecache.Bucket, pages pagecache.Options,
) (*chunkcache.Cache, error) {
	conf, m := &b.conf.caches, &b.conf.caches.Memory
	reader := &b.chunkReader
	remote, err := b.openMemcached(
		"caching-bucket", conf.ChunkRemote, m.ChunkWrites, reader, pages.Registerer)
	if err != nil {
		return nil, conf.bucketYAML.wrap(err)
	}
	pages.PageSize = int(m.Page[config.ChunkPages].Bytes)
	c := chunkcache.New(bucket, chunkcache.Options{
		MaxBytes: orNone(m.CacheBytes[config.ChunkPages]),
		Disk:     b.diskCache(config.ChunkPages, "chunks"),
		Remote:   remote, Pages: pages,
	})
	reader.Store(c.Reader)
	b.onClose(c.Close)
	return c, nil
}

// openMemcached opens a client, which is closed after its cache. It returns nil without a
// configuration. reader, once it is set, tells the client how long a read of the bucket takes
// instead.
func (b *backend) openMemcached(
	name string, conf *config.Memcached, writes *config.Amount,
	reader *readerPointer, reg prometheus.Registerer,
) (bytecache.Remote, error) {
	if conf == nil {
		return nil, nil
	}
	o := conf.Options
	o.Name, o.Logger, o.Registerer = name, b.logger, reg
	o.MaxAsyncBufferBytes = max(writes.Bytes, 1) // the client treats 0 as its default
	o.FirstByte = func() time.Duration {
		if r := reader.Load(); r != nil {
			return r.FirstByteP95()
		}
		return 0
	}
	if fixed := b.conf.hooks.constants.memcached; fixed > 0 {
		o.MinReadTimeout, o.FirstByte = fixed, func() time.Duration { return fixed }
	}
	client, err := memcached.New(o)
	if err != nil {
		return nil, conf.Wrap(err)
	}
	b.onClose(client.Close)
	return client, nil
}

// orNone converts 0, which options treat as their default, to -1, which means none.
func orNone[T ~int | ~int64](v T) T {
	if v == 0 {
		return -1
	}
	return v
}
