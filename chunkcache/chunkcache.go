package chunkcache

import (
	"larder/internal/bytecache"
	"larder/internal/pagecache"

	"github.com/oklog/ulid/v2"
)

// kind is the label of the metrics of the pages and of the cache.
const kind = "chunks"

// DefaultMaxBytes is the allowance unless another is given.
const DefaultMaxBytes = 512 << 20

// Options of a Cache. The zero value works.
type Options struct {
	// MaxBytes is the allowance of chunk pages, bookkeeping included; 512 MiB
	// by default. Negative: nothing is kept in memory, and without Remote
	// only reads that run at the same time are shared.
	MaxBytes int64
	// Remote keeps pages outside of the process, below the memory or alone: a
	// *memcached.Client, which stays the caller's to close, after the cache.
	// Nil: they are kept in memory alone.
	Remote bytecache.Remote
	// Pages says how chunk files are read. Its Kind is set here.
	Pages pagecache.Options
}

// Cache reads chunk files through pages. It is safe for concurrent use.
type Cache struct {
	*pagecache.Reader
	store bytecache.Cache
}

// New returns a cache of the bucket's chunk files.
func New(bkt pagecache.Bucket, o Options) *Cache {
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	c := &Cache{store: bytecache.Open(bytecache.Options{
		MaxBytes:           o.MaxBytes,
		MaxValueBytes:      o.Pages.PageBytes(),
		ExpectedValueBytes: o.Pages.PageBytes(),
		Name:               kind,
		Registerer:         o.Pages.Registerer,
	}, o.Remote)}
	o.Pages.Kind = kind
	c.Reader = pagecache.New(bkt, c.store, o.Pages)
	return c
}

// Object returns one of a block's chunk files, numbered from 1 on, as an object
// to fetch from. The block number is the process's own, content what every
// process calls that which the block holds, the name the object's full name in
// the bucket, the size exact.
func (c *Cache) Object(
	blockNumber uint32, blockID ulid.ULID, content uint64, fileNumber int, name string, size int64,
) pagecache.Object {
	id := pagecache.Uncached
	if fileNumber > 0 { // 0 is the index
		id = pagecache.ObjectID(blockNumber, fileNumber)
	}
	return pagecache.Object{Name: name, Size: size, ID: id, Block: blockID, Content: content}
}

// Stats returns the figures of the memory that keeps the pages.
func (c *Cache) Stats() bytecache.Stats { return c.store.Stats() }

// Close ends running reads and drops everything.
func (c *Cache) Close() {
	c.Reader.Close()
	c.store.Close()
}
