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

// Options select the blocks of a Catalog and bound its use of the bucket. Only Bucket is required.
type Options struct {
	// Bucket has the blocks. If it has objstore's ReaderWithExpectedErrs, the catalog reads through
	// that, so that missing deletion marks do not count as failures of the bucket.
	Bucket Bucket
	// BucketName and Prefix name the bucket in logs.
	BucketName, Prefix string
	// FinalError reports whether an error of the bucket is final, such as denied access: repeating
	// the read does not change it. nil: no error is final.
	FinalError func(error) bool
	// Parquet is the bucket that a Parquet converter writes to, nil for none. Blocks that its
	// meta.pb files name for all of their time are left out, because the gateway of that bucket
	// serves them. Every sync lists the whole bucket and reads new and changed meta.pb files.
	Parquet ParquetBucket
	// Dir is larder's directory in the data directory (<data-dir>/larder), created if it is
	// missing. Without one, a restart reads every meta.json again, and needs the bucket.
	Dir localfs.Dir
	// LockDir is called before every write into Dir. Its error counts as a failure of the disk.
	// nil: no other process uses Dir.
	LockDir func() error

	// Discovery is the method of finding blocks. "" = Concurrent.
	Discovery Discovery
	// Interval is the time between syncs, changed randomly by a tenth so that processes do not list
	// at the same time. 0 = 15 minutes. A shorter one finds new blocks sooner; each sync costs a
	// listing and up to max(256, n/8) lookups of marks.
	Interval time.Duration
	// Concurrency is the number of concurrent reads of meta.json and deletion marks. 0 = 256. The
	// bucket's slots bound it too.
	Concurrency int
	// DocumentBytes bounds the memory of documents (meta.json, marks, meta.pb) and listings while
	// they are read and decoded, at least 2 MiB. 0 = 72 MiB. Reads wait until enough is free. A
	// document that needs more than all of it is refused, and its block is not served. The same
	// limit applies, for each bucket, to the retained documents of more than 8 KiB.
	DocumentBytes int64
	// RequestTimeout bounds the read of one meta.json or mark. 0 = 30 seconds.
	RequestTimeout time.Duration
	// StallTimeout ends a listing that received nothing for this time. 0 = 2 minutes. It must be
	// longer than the bucket's own retries of one page of a listing.
	StallTimeout time.Duration
	// RefreshEvery is the minimum time between two refreshes. 0 = 10 seconds.
	RefreshEvery time.Duration
	// MeasureEvery is the minimum time between two measurements of one block that change nothing.
	// It doubles after each, up to a minute. 0 = 1 second. A shorter one notices sooner that a
	// damaged block was repaired, and sends more requests for one that was not.
	MeasureEvery time.Duration
	// SavedAfter is how long Run waits for the first sync before it serves the blocks on disk. It
	// does not wait longer than until the first sync fails. 0 = 10 seconds.
	SavedAfter time.Duration

	// MinTime and MaxTime select the blocks that overlap this range, both ends included. Zero = no
	// bound. Relative times are evaluated at every sync.
	MinTime, MaxTime TimeOrDuration
	// Relabel selects blocks by their external labels and __block_id. Only keep, drop and hashmod
	// are allowed.
	Relabel []*relabel.Config
	// HashmodPatience is how long blocks stay that leave because the modulus or the kept
	// remainders of a Hashmod changed, and nothing else, by Reselect or since the last process. It
	// is timed: no other process is asked. It must be longer than the others need to serve these
	// blocks, and than Queriers need to notice. A restart needs Dir to know the former rules. 0 =
	// they leave at once.
	HashmodPatience time.Duration
	// Shard decides which of the selected blocks are served, before compacted sources are dropped.
	// nil: all.
	Shard Shard
	// ConsistencyDelay excludes blocks younger than this, unless a compactor or a repair wrote
	// them. 0 = no delay. Only stores without read-after-write consistency need one.
	ConsistencyDelay time.Duration
	// IgnoreDeletionMarksDelay is how long a block is served after it was marked for deletion. 0 =
	// it leaves at once. Thanos's flag defaults to 24 h. It must be shorter than the compactor's
	// delete delay, and long enough to find the replacement.
	IgnoreDeletionMarksDelay time.Duration

	// Opened reports whether a block can answer queries. nil = always. A served block leaves in
	// favour of a larger block with all its sources only after Opened returned true for the larger
	// one. It is called during syncs and must not block.
	Opened func(ulid.ULID) bool
	// OnChange is called after every change of the view, one call at a time and in order. Queries
	// may use the new view before the call. It must not wait for a Sync or Refresh, which may wait
	// for it.
	OnChange func(old, new *View)

	// Logger receives the log. nil = no log.
	Logger *slog.Logger
	// Registerer receives the metrics. nil = no metrics.
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
			"unknown block discovery strategy %q: want %q or %q", o.Discovery, Concurrent,
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
		{"hashmod patience", &o.HashmodPatience, 0},
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
		o.Concurrency = 256
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
