package indexcache

import (
	"larder/internal/bytecache"
	"larder/internal/pagecache"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// kind is the label of the metrics of the pages and of the cache.
const kind = "index"

// indexFile is the file number of a block's index.
const indexFile = 0

const (
	// DefaultPostingsBytes is the allowance of expanded postings unless another
	// is given.
	DefaultPostingsBytes = 32 << 20
	// Expanded postings larger than a sixteenth of their allowance are not kept
	// in memory: reading them again costs less than all that they would push out.
	maxPostingsShare = 16
	expectedPostings = 2 << 10
)

// DefaultMaxBytes is the allowance unless another is given.
const DefaultMaxBytes = 250 << 20

// Options of a Cache. The zero value works.
type Options struct {
	// MaxBytes is the allowance of index pages, bookkeeping included; 250 MiB
	// by default. Negative: nothing is kept in memory, and without Remote
	// only reads that run at the same time are shared.
	MaxBytes int64
	// PostingsBytes is the allowance of expanded postings in memory, beside
	// MaxBytes; 32 MiB by default. Negative: none are kept in memory, and none
	// at all without Remote. Postings that lie close together take little more
	// than a byte each.
	PostingsBytes int64
	// NoPages keeps no pages, NoPostings no expanded postings, not even in
	// Remote.
	NoPages, NoPostings bool
	// Remote keeps pages and expanded postings outside of the process, below the memory or alone: a
	// *memcached.Client, which stays the caller's to close, after the cache.
	// Nil: they are kept in memory alone.
	Remote bytecache.Remote
	// Pages says how indexes are read. Its Kind is set here.
	Pages pagecache.Options
}

// Cache reads indexes through pages. It is safe for concurrent use.
type Cache struct {
	*pagecache.Reader
	store    bytecache.Cache
	postings *Postings
	metrics  *collector
	reg      prometheus.Registerer // nil: none
}

// New returns a cache of the bucket's indexes.
func New(bkt pagecache.Bucket, o Options) *Cache {
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	remote := o.Remote
	if o.NoPages {
		o.MaxBytes, remote = -1, nil
	}
	c := &Cache{store: bytecache.Open(bytecache.Options{
		MaxBytes:           o.MaxBytes,
		MaxValueBytes:      o.Pages.PageBytes(),
		ExpectedValueBytes: o.Pages.PageBytes(),
		Name:               kind,
		Registerer:         o.Pages.Registerer,
	}, remote)}
	if o.PostingsBytes == 0 {
		o.PostingsBytes = DefaultPostingsBytes
	}
	remote = o.Remote
	if o.NoPostings {
		o.PostingsBytes, remote = -1, nil
	}
	c.postings = newPostings(bytecache.Options{
		MaxBytes:           o.PostingsBytes,
		MaxValueBytes:      o.PostingsBytes / maxPostingsShare,
		ExpectedValueBytes: expectedPostings,
		Name:               "postings",
		Registerer:         o.Pages.Registerer,
	}, remote)
	o.Pages.Kind = kind
	c.Reader = pagecache.New(bkt, c.store, o.Pages)
	if c.reg = o.Pages.Registerer; c.reg != nil {
		c.metrics = newCollector(c)
		c.reg.MustRegister(c.metrics)
	}
	return c
}

// Object returns a block's index as an object to fetch from. The block number
// is the process's own, content what every process calls that which the block
// holds; the size is exact.
func (c *Cache) Object(
	blockNumber uint32, blockID ulid.ULID, content uint64, size int64,
) pagecache.Object {
	return pagecache.Object{
		Name:    blockID.String() + "/index",
		Size:    size,
		ID:      pagecache.ObjectID(blockNumber, indexFile),
		Block:   blockID,
		Content: content,
	}
}

// Postings returns the cache of expanded postings.
func (c *Cache) Postings() *Postings { return c.postings }

// Stats returns the figures of the memory that keeps the pages.
func (c *Cache) Stats() bytecache.Stats { return c.store.Stats() }

// Close ends running reads and drops everything.
func (c *Cache) Close() {
	if c.metrics != nil {
		c.reg.Unregister(c.metrics)
	}
	c.Reader.Close()
	c.postings.close()
	c.store.Close()
}
