package indexheader

import (
	"context"
	"log/slog"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/localfs"
)

// Source says where a block's index is.
type Source struct {
	ID ulid.ULID
	// Content tells what the block holds from what another held under its ID, 0 if that is not
	// known. A header is one content's alone.
	Content uint64
	// Number is larger for what the block came to hold later, while the process runs.
	Number uint32
	// IndexObject is the index's full name in the bucket.
	IndexObject string
	// IndexSize is the index's size in bytes, 0 if it is not known: then it costs a request.
	IndexSize int64
	// Unsized says that the size of some file of the block is not known: Options.Measure is asked
	// before the header is built.
	Unsized bool
	// MaxTime is the end of the block's time range, in milliseconds. The newest blocks are
	// prefetched first.
	MaxTime int64
}

// Options configure a Manager. Bucket must be set, everything else has a default.
type Options struct {
	// Dir is the directory of the header files. It belongs to this package; other processes may use
	// it at the same time. None keeps headers in memory, within MaxOpenBytes, and builds them again
	// when they are wanted after an eviction.
	Dir localfs.Dir
	// LockDir is called before every write into Dir. Its error counts as a failure of the local
	// disk. nil: no other process uses Dir. Dir itself is created if it is missing.
	LockDir func() error
	// SaveRetry is how long after a failure of the local disk it is tried again, with headers that
	// are in memory for want of it. Default 30 seconds.
	SaveRetry time.Duration
	// Bucket is where the indexes are read. It repeats requests that failed: a Manager does not.
	Bucket Bucket
	// Measure asks the bucket how large the files of a block really are: those of a block that is
	// Unsized, and those of one whose index does not hold where its size is stated. It returns true
	// if the block has other content by now: then what was built is not used, and who waits for it
	// gets ErrReplaced. corrupt says that bytes do not verify. The error is why the bucket could
	// not tell. nil: the sizes are believed.
	Measure func(ctx context.Context, src Source, corrupt bool) (changed bool, err error)
	// Unsatisfiable reports whether an error of the bucket says that the object ends before the
	// range; nil: none does.
	Unsatisfiable func(err error) bool
	// MaxOpenBytes bounds the heap of open headers, in bytes: their sparse tables, or all of them
	// without Dir. Headers in use are never closed, so more may be held while they are:
	// docs/memory.md says how much. Default 256 MiB, some 5,000 headers of 1,000,000 values
	// each in files. A header beyond it costs an opening (a few reads of the local disk) again.
	MaxOpenBytes int64
	// MaxOpenFiles bounds the number of open headers in the same way, because each holds a file.
	// Default 4096.
	MaxOpenFiles int
	// IdleTimeout closes headers that were not used for so long. Default 5 minutes; negative:
	// never.
	IdleTimeout time.Duration
	// BlockCacheBytes bounds the verified blocks of open headers that are kept for the next
	// look-up, in bytes. Default 64 MiB; negative: none. Without them each block costs a read of
	// the local disk (of its page cache, mostly) and a checksum.
	BlockCacheBytes int64
	// BuildConcurrency is how many headers are built at once. Those of indexes up to 1 MiB count an
	// eighth: they are all round trip and no work. Background builds take at most half. Default 20,
	// as Thanos's block-sync-concurrency.
	BuildConcurrency int
	// BuildBytes bounds the bytes of indexes that all builds together hold in memory. Default 64
	// MiB, at least PartSize.
	BuildBytes int64
	// PartSize is the size in bytes of one read of a table. Default 4 MiB, at most 16 MiB. Larger
	// parts are fewer requests, smaller ones come sooner.
	PartSize int64
	// BuildTimeout ends a build that takes longer, its wait for a place included. Default 10
	// minutes.
	BuildTimeout time.Duration
	// ReadTimeout ends a read that takes longer, including its retries and its wait for a slot of
	// the bucket. The build then fails. Default 1 minute. Shorter finds a broken bucket sooner, and
	// fails more builds while the bucket throttles.
	ReadTimeout time.Duration
	// Logger is told of damage and of failed background builds. Default: nobody.
	Logger *slog.Logger
	// Registerer takes the metrics. nil: none.
	Registerer prometheus.Registerer
}

const (
	maxPartSize = 16 << 20
	// smallIndex is the size in bytes up to which a build counts as small.
	smallIndex = 1 << 20
	// buildUnits is the weight of a build that is not small. The builds that run at once have
	// BuildConcurrency*buildUnits.
	buildUnits = 8

	// buildWindow is how many parts one build holds at most, and backgroundWindow how many while
	// nobody waits for it.
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
	o.PartSize = min(o.PartSize, maxPartSize)
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
