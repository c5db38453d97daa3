package pagecache

import (
	"context"
	"io"
	"log/slog"
	"math/bits"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/bucket/cost"
	"larder/internal/bucket/slots"
	"larder/internal/bytecache"
)

// Bucket is the part of an object store client that a Reader needs.
type Bucket interface {
	GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error)
	// IsObjNotFoundErr is called with unwrapped errors only: some providers do not recognise their
	// own error once it is wrapped.
	IsObjNotFoundErr(err error) bool
}

// Cache keeps pages: a bytecache.Cache. It may reject or evict any page at any time. It must be
// safe for concurrent use and must not change values. Set of a present key may do nothing.
type Cache interface {
	// Get returns a value from the process's memory. It does not wait.
	Get(local uint64) ([]byte, bool)
	// Fetch fills in the nil values that it finds. It may wait for a bounded time. It is called
	// only if Remote is true.
	Fetch(ctx context.Context, keys []bytecache.Key, values [][]byte) bytecache.Found
	Remote() bool
	Set(key bytecache.Key, value []byte)
	// Del drops a page with wrong bytes. A look-up that starts after Del has returned does not find
	// it, and the next Set stores a value.
	Del(key bytecache.Key)
}

// Limiter bounds the concurrent reads of the bucket: a slots.Limiter. All readers of a bucket in
// the process share one.
type Limiter interface {
	// AcquireFor waits for a slot for r, which may be promoted meanwhile.
	AcquireFor(ctx context.Context, r *slots.Read) error
	Release()
}

const (
	defaultPageSize      = 8 << 10
	minPageSize          = 512
	maxPageSize          = 1 << 20
	defaultFlightTimeout = 60 * time.Second
	defaultInFlightBytes = 256 << 20
	minBodyBuffer        = 32 << 10
	bufferSizes          = 4 // see Reader.buffers
)

// Options of a Reader. The zero value works.
type Options struct {
	// PageSize is the size of a page in bytes, rounded up to a power of two between 512 B and 1
	// MiB. Default 8 KiB. Larger pages need fewer look-ups and requests, and waste more memory and
	// traffic if little of each page is used.
	PageSize int
	// Costs says what a read costs, and measures the reads. It decides which gaps between needed
	// pages are read along, and how a long stretch is split. Default nil: a bucket with 20 ms to
	// the first byte and 80 MB/s, which is not measured. Share one among all readers of a bucket.
	Costs *cost.Meter
	// Limiter bounds the reads of the process. Default: one of its own, of 96 reads. Share one
	// among all readers of a bucket.
	Limiter Limiter
	// MaxInFlightBytes bounds the bytes of this reader's running reads. Default 256 MiB. A read
	// larger than that runs alone.
	MaxInFlightBytes int64
	// FlightTimeout is the deadline of one read of the bucket, with its retries, from the moment
	// that it has its slot. Default 60 s.
	FlightTimeout time.Duration
	// Accesses gets the pages that each Fetch needs, ascending, before they are looked up. object
	// is the ID of their object. It must not wait and not keep pages, and may overwrite them.
	// Default nil: none. It costs an allocation for each Fetch.
	Accesses func(object uint64, pages []int64)
	// Kind is the label of the metrics: "index" or "chunks".
	Kind string
	// Logger gets panics, and at level debug the plans of reads. Default nil: none.
	Logger *slog.Logger
	// Registerer gets the metrics. Default nil: none.
	Registerer prometheus.Registerer
}

// PageBytes returns the size of a whole page in bytes. No page of a Reader is larger.
func (o Options) PageBytes() int64 {
	if o.PageSize <= 0 {
		return defaultPageSize
	}
	size := min(max(o.PageSize, minPageSize), maxPageSize)
	return 1 << bits.Len(uint(size-1))
}

func (o Options) withDefaults() Options {
	o.PageSize = int(o.PageBytes())
	if o.Limiter == nil {
		o.Limiter = slots.New(slots.Options{})
	}
	if o.MaxInFlightBytes <= 0 {
		o.MaxInFlightBytes = defaultInFlightBytes
	}
	if o.FlightTimeout <= 0 {
		o.FlightTimeout = defaultFlightTimeout
	}
	if o.Kind == "" {
		o.Kind = "pages"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
