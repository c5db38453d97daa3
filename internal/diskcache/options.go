package diskcache

import (
	"cmp"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/bucket/cost"
	"larder/internal/bytecache"
	"larder/internal/localfs"
)

const (
	defaultTimeout    = 250 * time.Millisecond
	minTimeout        = 20 * time.Millisecond
	defaultWriteRate  = 32 << 20
	defaultMinFree    = 512 << 20
	maxMinFreeShare   = 20 // of the file system: MinFreeBytes is at most 1/20 of it
	defaultQueueBytes = 16 << 20
	defaultPageBytes  = 8 << 10
	minSegment        = 1 << 20
	segmentsPerCache  = 256 // about
	valuesPerSegment  = 16  // at least
)

// DiskOptions are the options of a Disk. The zero value works, except for Dir.
type DiskOptions struct {
	// Dir is the directory of all caches. It has a subdirectory for each.
	Dir localfs.Dir
	// LockDir is called before a file is created. It returns an error if another process uses the
	// directory, or if it cannot be used. Default: the directory is not locked.
	LockDir func() error
	// Timeout is how long a look-up waits for the disk. Then the request asks the next tier.
	// Default 250 ms. A longer time uses a slow disk more, and delays requests more.
	Timeout time.Duration
	// FirstByte returns the time within which the bucket usually answers, 0 if it is not known. A
	// look-up waits no longer than that for the disk, but at least 20 ms. Default: not known.
	FirstByte func() time.Duration
	// Bucket returns what reads of the bucket cost. Large stretches that the bucket reads sooner
	// than the disk are not read from the disk. Default: everything is read from the disk.
	Bucket func() cost.Model
	// WriteRate bounds the bytes written in a second. Default 32 MiB. Further pages wait, and are
	// dropped if too many do.
	WriteRate int64
	// WritesPerDay bounds the bytes written in a day (UTC), because writes wear out flash. Pages
	// beyond it are dropped. Default 0: no limit.
	WritesPerDay int64
	// MinFreeBytes is what stays free in the file system. Default 512 MiB, but at most a twentieth
	// of the file system.
	MinFreeBytes int64
	// Logger gets a warning when the disk is not used any more, and a line when it is used again.
	// Default nil: none.
	Logger *slog.Logger
	// Registerer gets the metrics. Default nil: none.
	Registerer prometheus.Registerer
}

func (o DiskOptions) withDefaults() DiskOptions {
	o.Timeout = cmp.Or(max(o.Timeout, 0), defaultTimeout)
	o.WriteRate = cmp.Or(max(o.WriteRate, 0), defaultWriteRate)
	o.MinFreeBytes = cmp.Or(max(o.MinFreeBytes, 0), defaultMinFree)
	if o.LockDir == nil {
		o.LockDir = func() error { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// MinWritesPerDay is the least useful DiskOptions.WritesPerDay. A batch of pages of up to 1 MiB has
// less than 3 MiB, and caches without Options.Priority may use three quarters of a day's bytes.
const MinWritesPerDay = 4 << 20

// Options of a Cache.
type Options struct {
	// Kind names the cache: its subdirectory, and the label `cache` of the metrics. Default
	// "pages".
	Kind string
	// MaxBytes is the limit of the files of the cache. Default and least value 16 MiB.
	MaxBytes int64
	// PageBytes is the size of the largest page, which most pages have. Larger values are refused.
	// Default 8 KiB.
	PageBytes int64
	// SecondUse keeps a page when it is used the second time, so that pages that are used once
	// replace none that are used often.
	SecondUse bool
	// Priority keeps a quarter of DiskOptions.WritesPerDay for caches that have it, so that other
	// caches of the disk cannot use it up.
	Priority bool
	// Evicted is called after pages were removed because space was needed, with the identity of the
	// first page of each object that lost some. It must not wait. Default nil: not called.
	Evicted func(objects []bytecache.ID)
	// QueueBytes bounds the memory of pages that wait to be written. Default 16 MiB. Further pages
	// are dropped.
	QueueBytes int64
}

const minMaxBytes = 16 << 20

func (o Options) withDefaults() Options {
	o.Kind = cmp.Or(o.Kind, "pages")
	o.MaxBytes = min(max(o.MaxBytes, minMaxBytes), MaxBytes)
	o.PageBytes = cmp.Or(max(o.PageBytes, 0), defaultPageBytes)
	o.QueueBytes = cmp.Or(max(o.QueueBytes, 0), defaultQueueBytes)
	return o
}

// pages returns how many pages fit.
func (o Options) pages() int64 { return o.MaxBytes/recordBytes(o.PageBytes) + 1 }

// segmentBytes returns the size of a segment. A small one makes eviction fine; a large one needs
// fewer open files.
func (o Options) segmentBytes() int64 {
	n := max(o.MaxBytes/segmentsPerCache, minSegment, valuesPerSegment*recordBytes(o.PageBytes))
	return min(n, maxSegment) / unit * unit
}

// MemoryBytes returns the memory in bytes that a cache takes: its index, the pages that wait, and
// those that are being written.
func (o Options) MemoryBytes() int64 {
	return o.IndexBytes() + o.withDefaults().QueueBytes + 3*batchBytes
}

// ReadBytes returns the memory in bytes of running reads, for all caches of a Disk with pages of up
// to the given size.
func ReadBytes(page int64) int64 { return maxReads * max(maxExtent, recordBytes(page)) }

// IndexBytes returns the memory in bytes that the index of a cache takes, besides its queue.
func (o Options) IndexBytes() int64 {
	o = o.withDefaults()
	n := tableBytes(o.pages())
	if o.SecondUse {
		n += ghostBytes(o.pages())
	}
	return n
}
