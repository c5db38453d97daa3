package chunkcache

import (
	"larder/internal/bytecache"
	"larder/internal/pagecache"

	"github.com/oklog/ulid/v2"
)

// kind is the label of the metrics of pages and cache.
const kind = "chunks"

// DefaultMaxBytes is the default of Options.MaxBytes.
const DefaultMaxBytes = 512 << 20

// Options of a Cache. The zero value works.
type Options struct {
	// MaxBytes is the allowance of chunk pages, in bytes with bookkeeping. Default 512 MiB.
	// Negative: nothing is kept in memory, and without Remote only concurrent reads are shared.
	MaxBytes int64
	// Remote is a tier below memory, or the only tier: a *memcached.Client. The caller closes it
	// after the cache. Default nil: pages are kept in memory only.
	Remote bytecache.Remote
	// Disk opens what keeps pages of the given size on a local disk, between memory and Remote, or
	// returns nil for none. New's cache closes it. Default nil: none.
	Disk func(pageBytes int64) bytecache.Disk
	// Pages configures the page reader. New sets its Kind.
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
	var disk bytecache.Disk
	if o.Disk != nil {
		disk = o.Disk(o.Pages.PageBytes())
	}
	c := &Cache{store: bytecache.Open(bytecache.Options{
		MaxBytes:           o.MaxBytes,
		MaxValueBytes:      o.Pages.PageBytes(),
		ExpectedValueBytes: o.Pages.PageBytes(),
		Name:               kind,
		Registerer:         o.Pages.Registerer,
	}, disk, o.Remote)}
	o.Pages.Kind = kind
	c.Reader = pagecache.New(bkt, c.store, o.Pages)
	return c
}

// Object returns a chunk file of a block as an object to fetch from. blockNumber is the block's
// number within this process, content the identity of its contents, which all processes
// share, fileNumber the number of the chunk file, from 1 on, name its full name in the bucket, and
// size its exact size in bytes.
func (c *Cache) Object(
	blockNumber uint32, blockID ulid.ULID, content uint64, fileNumber int, name string, size int64,
) pagecache.Object {
	id := pagecache.Uncached
	if fileNumber > 0 { // 0 is the index
		id = pagecache.ObjectID(blockNumber, fileNumber)
	}
	return pagecache.Object{Name: name, Size: size, ID: id, Block: blockID, Content: content}
}

// Stats returns the statistics of the memory tier.
func (c *Cache) Stats() bytecache.Stats { return c.store.Stats() }

// Close cancels running reads and drops all pages.
func (c *Cache) Close() {
	c.Reader.Close()
	c.store.Close()
}
