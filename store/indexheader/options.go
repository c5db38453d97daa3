package indexheader

import (
	"context"
	"log/slog"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/localfs"
	"larder/internal/tsdbfmt"
)

// Source identifies a block and the place of its index.
type Source struct {
	ID ulid.ULID
	// Content identifies the contents of the block, 0 if unknown. It differs after a block was
	// replaced by another with its ID. A header belongs to one Content.
	Content uint64
	// Number is larger for later contents of the block, within the process.
	Number uint32
	// IndexObject is the index's full name in the bucket.
	IndexObject string
	// IndexSize is the index's size in bytes. 0: unknown, which costs a request.
	IndexSize int64
	// Unsized says that the size of a file of the block is not known. Options.Measure is then
	// called before the header is built.
	Unsized bool
	// MaxTime is the end of the block's time range, in milliseconds. The newest blocks are
	// prefetched first.
	MaxTime int64
}

// Read is a range of an index that the build of a header has read.
type Read struct {
	Source     Source
	TOC        tsdbfmt.TOC
	Background bool // no caller waited for the build when it began
	Off        int64
	Bytes      []byte // valid until OnRead returns
}

// Options of a Manager. Bucket must be set. All other fields have a default.
type Options struct {
	// Dir is the directory of the header files. It belongs to this package. Other processes may use
	// it at the same time. Default: none. Headers are then kept in memory, within MaxOpenBytes, and
	// built again after an eviction.
	Dir localfs.Dir
	// LockDir is called before every write into Dir. Its error counts as a failure of the local
	// disk. nil: no other process uses Dir. Dir itself is created if it is missing.
	LockDir func() error
	// SaveRetry is the longest time between attempts to save headers after a failure of the local
	// disk. Default 30 seconds.
	SaveRetry time.Duration
	// Bucket is where the indexes are read. It repeats requests that failed: a Manager does not.
	Bucket Bucket
	// OnRead gets what builds read of indexes, as they read it. It must not wait. It is called
	// concurrently. Default nil: not called.
	OnRead func(Read)
	// PageSize makes builds read whole pages of this size, so that OnRead gets whole pages: a power
	// of two. Default 0: they read what they need.
	PageSize int64
	// Measure asks the bucket for the sizes of a block's files. It is called for a block that is
	// Unsized, and for one whose index does not have its stated size or does not verify (corrupt).
	// It returns true if the block's contents have been replaced: the build then ends with
	// ErrReplaced. It returns an error if the bucket does not tell the sizes. Default nil: stated
	// sizes are trusted.
	Measure func(ctx context.Context, src Source, corrupt bool) (changed bool, err error)
	// Unsatisfiable reports whether an error of the bucket says that the object ends before the
	// range. Default nil: no error does.
	Unsatisfiable func(err error) bool
	// MaxOpenBytes bounds the heap of open headers in bytes: their sparse tables or, without Dir,
	// whole headers. Headers in use are never closed and may exceed it (docs/memory.md). Default
	// 256 MiB, enough for about 5,000 header files of 1,000,000 values each. Less costs more
	// openings, a few reads of the local disk each.
	MaxOpenBytes int64
	// MaxOpenFiles bounds the number of open headers in the same way, because each has a file open.
	// Default 4096.
	MaxOpenFiles int
	// IdleTimeout is the time after which an unused header is closed. Default 5 minutes. Negative:
	// never.
	IdleTimeout time.Duration
	// BlockCacheBytes bounds the cached verified blocks of open headers, in bytes. Default 64 MiB.
	// Negative: no cache. A block that is not cached costs a read of the local disk, mostly from
	// its page cache, and a checksum.
	BlockCacheBytes int64
	// BuildConcurrency is the number of headers that are built at once. A header of an index up to
	// 1 MiB counts an eighth, because its build is one round trip and little work. Background
	// builds get at most half. Default 20, same as Thanos's block-sync-concurrency.
	BuildConcurrency int
	// BuildBytes bounds the bytes of indexes in the memory of all builds together. Default 64 MiB,
	// at least PartSize.
	BuildBytes int64
	// PartSize is the size in bytes of one read of a table. Default 4 MiB, at most 16 MiB. Larger
	// parts need fewer requests, smaller ones arrive sooner.
	PartSize int64
	// BuildTimeout is the deadline of a build, including its wait in the build queue. Default 10
	// minutes.
	BuildTimeout time.Duration
	// ReadTimeout ends a read that takes longer, including its retries and its wait for a slot of
	// the bucket. The build then fails. Default 1 minute. Shorter finds a broken bucket sooner, and
	// fails more builds while the bucket throttles.
	ReadTimeout time.Duration
	// Logger gets damage and failed background builds. Default nil: none.
	Logger *slog.Logger
	// Registerer gets the metrics. Default nil: none.
	Registerer prometheus.Registerer
}

const (
	maxPartSize = 16 << 20
	// smallIndex is the size in bytes up to which a build counts as small.
	smallIndex = 1 << 20
	// buildUnits is the weight of a build that is not small. The builds that run at once have
	// BuildConcurrency*buildUnits.
	buildUnits = 8

	// buildWindow is the maximum number of parts in the memory of one build, and backgroundWindow
	// that of a background build.
	buildWindow      = 4
	backgroundWindow = 2
)

func (o Options) withDefaults() Options {
	if o.MaxOpenBytes <= 0 {
		o.MaxOpenBytes = 256 << 20
	}
	if o.MaxOpenFiles <= 0 {
		o.MaxOpenFiles = 4096
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = 5 * time.Minute
	}
	if o.SaveRetry <= 0 {
		o.SaveRetry = 30 * time.Second
	}
	if o.BlockCacheBytes == 0 {
		o.BlockCacheBytes = 64 << 20
	}
	if o.BuildConcurrency <= 0 {
		o.BuildConcurrency = 20
	}
	if o.PartSize <= 0 {
		o.PartSize = 4 << 20
	}
	o.PageSize = max(o.PageSize, 1)
	o.PartSize = (min(o.PartSize, maxPartSize) + o.PageSize - 1) / o.PageSize * o.PageSize
	if o.BuildBytes <= 0 {
		o.BuildBytes = 64 << 20
	}
	o.BuildBytes = max(o.BuildBytes, o.PartSize)
	if o.BuildTimeout <= 0 {
		o.BuildTimeout = 10 * time.Minute
	}
	if o.ReadTimeout <= 0 {
		o.ReadTimeout = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// weight is the number of units of the build queue that building the header of src needs.
func (s Source) weight() int {
	if s.IndexSize > 0 && s.IndexSize <= smallIndex {
		return 1
	}
	return buildUnits
}
