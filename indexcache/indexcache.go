package indexcache

import (
	"larder/internal/bytecache"
	"larder/internal/pagecache"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// kind labels the metrics of the pages and of the cache.
const kind = "index"

// indexFile is the file number of a block's index.
const indexFile = 0

const (
	// DefaultPostingsBytes is the default of Options.PostingsBytes.
	DefaultPostingsBytes = 32 << 20
	// maxPostingsShare limits expanded postings in memory to this part of their allowance, as 1/n.
	// Reading larger ones again costs less than what they would evict.
	maxPostingsShare = 16
	// expectedPostings is the usual size of expanded postings.
	expectedPostings = 2 << 10
)

const (
	// DefaultMaxBytes is the default of Options.MaxBytes.
	DefaultMaxBytes = 250 << 20
	// DefaultPageSize is the default of Options.Pages.PageSize. It is the result of a search on a
	// block of 1,000,000 series: docs/tuning.md.
	DefaultPageSize = 16 << 10
)

// Options of a Cache. The zero value works.
type Options struct {
	// MaxBytes is the allowance of index pages, bookkeeping included; default 250 MiB. Negative: no
	// page is kept in memory. Without Remote, requests then share only concurrent reads.
	MaxBytes int64
	// PostingsBytes is the allowance of expanded postings in memory, in addition to MaxBytes;
	// default 32 MiB. Negative: none are kept in memory. Adjacent postings need little more than
	// one byte each.
	PostingsBytes int64
	// NoPages keeps no pages, NoPostings no expanded postings, not even in Remote.
	NoPages, NoPostings bool
	// Remote keeps pages and expanded postings outside of the process, in addition to memory:
	// *memcached.Client. The caller closes it after the cache. nil: they are kept in memory only.
	Remote bytecache.Remote
	// Disk opens what keeps pages of the given size on a local disk, between memory and Remote, or
	// returns nil for none. New's cache closes it. nil: none.
	Disk func(pageBytes int64) bytecache.Disk
	// Pages says how indexes are read. New sets its Kind. Its PageSize is DefaultPageSize unless
	// given.
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
	if o.Pages.PageSize <= 0 {
		o.Pages.PageSize = DefaultPageSize
	}
	remote := o.Remote
	if o.NoPages {
		o.MaxBytes, remote = -1, nil
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
	}, disk, remote)}
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

// Object returns the index of a block as an object to fetch from. The block number is that of this
// process. content names the version of the block's contents in every process. size is exact.
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

// Stats returns figures of the pages in memory.
func (c *Cache) Stats() bytecache.Stats { return c.store.Stats() }

// Close ends running reads and drops all pages and postings.
func (c *Cache) Close() {
	if c.metrics != nil {
		c.reg.Unregister(c.metrics)
	}
	c.Reader.Close()
	c.postings.close()
	c.store.Close()
}
