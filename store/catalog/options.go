package catalog

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/relabel"

	"larder/internal/localfs"
)

// Options say what a Catalog serves and how hard it may use the bucket. Only Bucket is required.
type Options struct {
	// Bucket holds the blocks. A bucket with objstore's ReaderWithExpectedErrs is read through it,
	// so that the missing deletion marks do not count as failures of the bucket.
	Bucket Bucket
	// BucketName and Prefix name the bucket in logs.
	BucketName, Prefix string
	// FinalError tells whether an error of the bucket is an answer that repeating the read does not
	// change, such as denied access; nil: none is.
	FinalError func(error) bool
	// Parquet is the bucket that a Parquet converter writes to; nil for none. Blocks that its
	// meta.pb files name for all of their time are left out: whoever serves that bucket has them.
	// It is listed whole at every sync, and meta.pb files that are new or changed are read.
	Parquet ParquetBucket
	// Dir is larder's folder in the data directory (<data-dir>/larder), made if it is missing.
	// Without one nothing is kept: a restart reads every meta.json again, and cannot start without
	// the bucket.
	Dir localfs.Dir
	// LockDir is called before every write into Dir. Its error counts as a failure of the disk. nil:
	// no other process uses Dir.
	LockDir func() error

	// Discovery is how blocks are found; "" is Concurrent.
	Discovery Discovery
	// Interval is the time between syncs, spread by a tenth so that processes do not list together;
	// 0 is 15 minutes. A shorter one sees new blocks sooner and costs a listing and up to max(256,
	// n/8) look-ups of marks each time.
	Interval time.Duration
	// Concurrency is how many meta.json and deletion marks are read at a time; 0 is 32.
	Concurrency int
	// DocumentBytes bounds the memory of documents (meta.json, marks, meta.pb) and listings while
	// they are read and decoded, at least 2 MiB; 0 is 72 MiB. Those that find none free wait. One
	// that needs more than all of it is refused, and its block is not served. What is kept of the
	// documents of blocks that take more than 8 KiB each is bounded by as much, of each bucket.
	DocumentBytes int64
	// RequestTimeout bounds the read of one meta.json or mark; 0 is 30 seconds.
	RequestTimeout time.Duration
	// StallTimeout ends a listing in which nothing came for so long; 0 is 2 minutes. It must
	// outlast the bucket's own retries of one page of a listing.
	StallTimeout time.Duration
	// RefreshEvery is the shortest time between two refreshes; 0 is 10 seconds.
	RefreshEvery time.Duration
	// MeasureEvery is the shortest time between two measurements of one block that change nothing,
	// twice as long after each, up to a minute; 0 is 1 second. A shorter one sees sooner that a
	// damaged block was repaired, and asks the bucket more often about one that is not.
	MeasureEvery time.Duration
	// SavedAfter is how long Run waits for the first sync before it serves what is on disk; 0 is 10
	// seconds. A first sync that fails sooner is not waited for.
	SavedAfter time.Duration

	// MinTime and MaxTime keep only blocks that reach into this range, both ends included; zero is
	// no bound. Relative ones are evaluated at every sync.
	MinTime, MaxTime TimeOrDuration
	// Relabel selects blocks by their external labels and __block_id; only keep, drop and hashmod
	// are allowed.
	Relabel []*relabel.Config
	// ConsistencyDelay keeps out blocks younger than this, unless a compactor or a repair wrote
	// them. 0 keeps none out; only stores without read-after-write consistency need more.
	ConsistencyDelay time.Duration
	// IgnoreDeletionMarksDelay is how long after being marked for deletion a block leaves; 0 means
	// at once (Thanos's flag defaults to 24 h). It must be shorter than the compactor's delete
	// delay, and long enough for the replacement to be found.
	IgnoreDeletionMarksDelay time.Duration

	// Opened reports whether a block can answer queries by now; nil is always. A block that is
	// served leaves because of a larger block that has all its sources only after Opened said yes
	// for the larger one. It is called during syncs and must not block.
	Opened func(ulid.ULID) bool
	// OnChange is called after every change of the view, one call at a time and in order. Queries
	// may use the new view before the call. It must not wait for a Sync or Refresh, which may be
	// waiting for it.
	OnChange func(old, new *View)

	// Logger is where the catalog reports; nil discards.
	Logger *slog.Logger
	// Registerer takes the metrics; nil is none.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() (Options, error) {
	if o.Bucket == nil {
		return o, errors.New("catalog: no bucket")
	}
	switch o.Discovery {
	case "":
		o.Discovery = Concurrent
	case Concurrent, Recursive:
	default:
		return o, fmt.Errorf(
			"block discovery strategy %q is unknown: want %q or %q", o.Discovery, Concurrent,
			Recursive,
		)
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		zero  time.Duration
	}{
		{"interval", &o.Interval, 15 * time.Minute},
		{"request timeout", &o.RequestTimeout, 30 * time.Second},
		{"stall timeout", &o.StallTimeout, 2 * time.Minute},
		{"refresh interval", &o.RefreshEvery, 10 * time.Second},
		{"measuring interval", &o.MeasureEvery, time.Second},
		{"wait for the first sync", &o.SavedAfter, 10 * time.Second},
		{"consistency delay", &o.ConsistencyDelay, 0},
		{"ignore-deletion-marks delay", &o.IgnoreDeletionMarksDelay, 0},
	} {
		if *d.value < 0 {
			return o, fmt.Errorf("catalog: %s %v is negative", d.name, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.zero
		}
	}
	switch {
	case o.Concurrency < 0:
		return o, fmt.Errorf("catalog: concurrency %d is negative", o.Concurrency)
	case o.Concurrency == 0:
		o.Concurrency = 32
	}
	if o.DocumentBytes == 0 {
		o.DocumentBytes = defaultDocumentBytes
	}
	o.DocumentBytes = max(o.DocumentBytes, minDocumentBytes)
	if err := checkRelabel(o.Relabel, nil); err != nil {
		return o, err
	}
	if o.FinalError == nil {
		o.FinalError = func(error) bool { return false }
	}
	if o.Opened == nil {
		o.Opened = func(ulid.ULID) bool { return true }
	}
	if o.OnChange == nil {
		o.OnChange = func(_, _ *View) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}
