package chunkcache

import (
	"context"
	"log/slog"
	"time"

	"larder/internal/bytecache"
	"larder/internal/pagecache"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// kind is the label of the metrics of the pages and of the cache.
const kind = "chunks"

// DefaultMaxBytes is the allowance unless another is given.
const DefaultMaxBytes = 512 << 20

// Options of a Cache. The zero value works.
type Options struct {
	// MaxBytes is the allowance of chunk pages, bookkeeping included; 512 MiB
	// by default. Negative: nothing is kept, and only reads that run at the
	// same time are shared.
	MaxBytes int64

	// The following are those of pagecache.Options, where 0 is a default.

	// PageSize in bytes.
	PageSize int
	// ReadAmplification bounds the bytes read by those of the pages needed.
	ReadAmplification float64
	// MaxRead bounds one read, in bytes.
	MaxRead int64
	// FetchReads bounds the reads that one Fetch runs at once.
	FetchReads int
	// Slots bounds the reads of the process: share one value.
	Slots pagecache.Slots
	// MaxInFlightBytes bounds the bytes of running reads of chunk files.
	MaxInFlightBytes int64
	// FlightTimeout bounds one read of the bucket.
	FlightTimeout time.Duration

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Cache reads chunk files through pages. It is safe for concurrent use.
type Cache struct {
	store  store
	reader *pagecache.Reader
}

// store is what keeps the pages.
type store interface {
	pagecache.Cache
	Stats() bytecache.Stats
	Close()
}

// New returns a cache of the bucket's chunk files.
func New(bkt pagecache.Bucket, o Options) *Cache {
	c := &Cache{store: bytecache.None{}}
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxBytes > 0 {
		c.store = bytecache.NewMemory(bytecache.Options{
			MaxBytes:           o.MaxBytes,
			ExpectedValueBytes: int64(o.PageSize),
			Name:               kind,
			Registerer:         o.Registerer,
		})
	}
	c.reader = pagecache.New(bkt, c.store, pagecache.Options{
		PageSize:          o.PageSize,
		ReadAmplification: o.ReadAmplification,
		MaxRead:           o.MaxRead,
		FetchReads:        o.FetchReads,
		Slots:             o.Slots,
		MaxInFlightBytes:  o.MaxInFlightBytes,
		FlightTimeout:     o.FlightTimeout,
		Kind:              kind,
		Logger:            o.Logger,
		Registerer:        o.Registerer,
	})
	return c
}

// Object returns one of a block's chunk files, numbered from 1 on, as an object
// to fetch from. The block number is the process's own, the name the object's
// full name in the bucket, the size exact.
func (c *Cache) Object(blockNumber uint32, blockID ulid.ULID, fileNumber int, name string, size int64) pagecache.Object {
	id := pagecache.Uncached
	if fileNumber > 0 { // 0 is the index
		id = pagecache.ObjectID(blockNumber, fileNumber)
	}
	return pagecache.Object{Name: name, Size: size, ID: id}
}

// Fetch returns the pages of a chunk file that the spans lie in; see
// pagecache.Reader.
func (c *Cache) Fetch(ctx context.Context, obj pagecache.Object, spans []pagecache.Span, acct *pagecache.Account) (*pagecache.Pages, error) {
	return c.reader.Fetch(ctx, obj, spans, acct)
}

// Refetch reads the pages of a span anew, after a checksum mismatch.
func (c *Cache) Refetch(ctx context.Context, obj pagecache.Object, span pagecache.Span, acct *pagecache.Account) (*pagecache.Pages, error) {
	return c.reader.Refetch(ctx, obj, span, acct)
}

// PageSize returns the size of a page in bytes, a power of two.
func (c *Cache) PageSize() int { return c.reader.PageSize() }

// Stats returns the figures of the memory that keeps the pages.
func (c *Cache) Stats() bytecache.Stats { return c.store.Stats() }

// Close ends running reads and drops everything.
func (c *Cache) Close() {
	c.reader.Close()
	c.store.Close()
}
