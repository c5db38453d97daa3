package pagecache

import (
	"context"
	"io"
	"log/slog"
	"math/bits"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/bucket/slots"
	"larder/internal/bytecache"
)

// Bucket is what is needed of the object store.
type Bucket interface {
	GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error)
	// IsObjNotFoundErr is called with unwrapped errors only: some providers do not recognise their
	// own error once it is wrapped.
	IsObjNotFoundErr(err error) bool
}

// Cache keeps pages: a bytecache.Cache. It may refuse or forget any of them at
// any time, must be safe for concurrent use, and must not change what it was
// given. Values are immutable: Set of a present key may do nothing.
type Cache interface {
	// Get finds what is in the process's memory, at once.
	Get(local uint64) ([]byte, bool)
	// Fetch fills in the values that are nil, as far as it finds them, and may
	// wait for a bounded time. It is asked only where Remote is true.
	Fetch(ctx context.Context, keys []bytecache.Key, values [][]byte)
	Remote() bool
	Set(key bytecache.Key, value []byte)
	// Del drops a page whose bytes proved wrong: a look-up that starts after Del
	// returned does not see it, and the next Set is taken.
	Del(key bytecache.Key)
}

// Limiter bounds the concurrent reads of the bucket: a slots.Limiter. All readers of a bucket in the
// process share one.
type Limiter interface {
	Acquire(ctx context.Context) error
	Release()
}

const (
	defaultPageSize      = 8 << 10
	minPageSize          = 512
	maxPageSize          = 1 << 20
	defaultAmplification = 1.25
	defaultMaxRead       = 8 << 20
	defaultFetchReads    = 16
	defaultFlightTimeout = 60 * time.Second
	defaultInFlightBytes = 256 << 20
	bodyBufferSize       = 256 << 10
)

// Options of a Reader. The zero value works.
type Options struct {
	// PageSize in bytes, 8 KiB by default; rounded up to a power of two between
	// 512 B and 1 MiB. Larger pages cost fewer look-ups and requests, and
	// waste more of what is read and kept when little is needed of each.
	PageSize int
	// ReadAmplification bounds the bytes read as a multiple of the bytes of the
	// pages that are needed; 1.25 by default, at least 1. More means fewer
	// requests and more bytes.
	ReadAmplification float64
	// MaxRead bounds one read in bytes, 8 MiB by default, at least one page.
	// Longer stretches are read as several reads in parallel.
	MaxRead int64
	// FetchReads bounds the reads that one Fetch runs at once; 16 by default.
	FetchReads int
	// Limiter bounds the reads of the process. Default: one of its own, of 96 reads. Share one
	// among all readers of a bucket.
	Limiter Limiter
	// MaxInFlightBytes bounds the bytes of this reader's running reads, 256 MiB
	// by default. A read larger than all of it runs alone.
	MaxInFlightBytes int64
	// FlightTimeout is the hard deadline of one read of the bucket, 60 s by
	// default, counted from when it has its slot.
	FlightTimeout time.Duration
	// Kind is the label of the metrics: "index" or "chunks".
	Kind string
	// Logger hears about panics. Nil: nobody.
	Logger *slog.Logger
	// Registerer receives the metrics. Nil: none are kept.
	Registerer prometheus.Registerer
}

// PageBytes returns the size of a whole page: no page that a Reader keeps is
// larger.
func (o Options) PageBytes() int64 {
	if o.PageSize <= 0 {
		return defaultPageSize
	}
	size := min(max(o.PageSize, minPageSize), maxPageSize)
	return 1 << bits.Len(uint(size-1))
}

func (o Options) withDefaults() Options {
	o.PageSize = int(o.PageBytes())
	if o.ReadAmplification == 0 {
		o.ReadAmplification = defaultAmplification
	}
	o.ReadAmplification = max(o.ReadAmplification, 1)
	if o.MaxRead <= 0 {
		o.MaxRead = defaultMaxRead
	}
	o.MaxRead = max(o.MaxRead, int64(o.PageSize))
	if o.FetchReads <= 0 {
		o.FetchReads = defaultFetchReads
	}
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
