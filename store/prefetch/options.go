package prefetch

import (
	"context"
	"log/slog"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/bytecache"
	"larder/internal/localfs"
	"larder/internal/pagecache"
	"larder/internal/tsdbfmt"
	"larder/store/indexheader"
)

// Pages reads indexes through pages: *indexcache.Cache.
type Pages interface {
	Object(number uint32, id ulid.ULID, content uint64, size int64) pagecache.Object
	PageSize() int
	Keys(obj pagecache.Object, span pagecache.Span) []bytecache.Key
	Prefetch(
		ctx context.Context, obj pagecache.Object, span pagecache.Span,
		keep func(key bytecache.Key, value []byte),
	) (done pagecache.Span, values [][]byte, err error)
}

// Disk keeps the pages: *diskcache.Cache.
type Disk interface {
	Loaded() <-chan struct{}
	Available() bool
	Lost() int64
	Has(keys []bytecache.Key) []bool
	Await(ctx context.Context, n int64) error
	Fill(ctx context.Context, keys []bytecache.Key, values [][]byte) error
	Offer(key bytecache.Key, value []byte)
}

// Headers builds index headers: *indexheader.Manager.
type Headers interface {
	Opened(id ulid.ULID) bool
	Wait(ctx context.Context, ids []ulid.ULID) error
	Prefetch(srcs []indexheader.Source)
	TOC(src indexheader.Source) (toc tsdbfmt.TOC, ok bool)
}

const (
	defaultReadBytes = 8 << 20
	defaultMinRate   = 1 << 20
)

// Options of a Prefetcher. Pages, Disk, Headers and MaxBytes are required.
type Options struct {
	Pages   Pages
	Disk    Disk
	Headers Headers
	// MaxBytes bounds the indexes, in bytes, that are read and kept at one time. More than the
	// disk has for index pages would evict what was just read.
	MaxBytes int64
	// ReadBytes bounds one read, and is the memory that the Prefetcher takes. Default 8 MiB. Fewer
	// bytes need more requests.
	ReadBytes int64
	// MinRate is how many bytes a second are read even if requests use all reads of the bucket.
	// Default 1 MiB. More finishes sooner and delays requests more. Negative: none.
	MinRate int64
	// Queried returns when blocks were last queried, if after since. Default nil: not known, only
	// the newest blocks are read.
	Queried func(since time.Time) map[ulid.ULID]time.Time
	// Busy reports whether requests wait for memory or a place. Reads then wait too, as far as
	// MinRate permits. Default nil: it is not asked.
	Busy func() bool
	// Dir is the directory of the file of evicted blocks. Default: none, a restart forgets them.
	Dir localfs.Dir
	// LockDir is called before the file is written. Its error counts as a failed write. Default
	// nil: no other process uses Dir.
	LockDir func() error
	// Logger gets blocks that could not be read. Default nil: none.
	Logger *slog.Logger
	// Registerer gets the metrics. Default nil: none.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	if o.ReadBytes <= 0 {
		o.ReadBytes = defaultReadBytes
	}
	page := int64(o.Pages.PageSize())
	o.ReadBytes = max(o.ReadBytes/page, 1) * page
	if o.MinRate == 0 {
		o.MinRate = defaultMinRate
	}
	if o.Queried == nil {
		o.Queried = func(time.Time) map[ulid.ULID]time.Time { return nil }
	}
	if o.Busy == nil {
		o.Busy = func() bool { return false }
	}
	if o.LockDir == nil {
		o.LockDir = func() error { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
