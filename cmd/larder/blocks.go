package main

import (
	"fmt"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/relabel"

	"larder/internal/bucket/retry"
	"larder/internal/localfs"
	"larder/store/catalog"
)

// blocksConfig holds the flags that say how blocks are found, and which of them are served.
type blocksConfig struct {
	interval           time.Duration
	discovery          string
	concurrency        int
	minTime, maxTime   catalog.TimeOrDuration
	consistencyDelay   time.Duration
	deletionMarksDelay time.Duration
	relabelYAML        content

	// set by load
	relabel     []*relabel.Config
	relabelText []byte // what relabel was read from
}

func (c *blocksConfig) flags(f flagger) {
	flag(
		f, "sync-block-duration",
		"Interval at which the bucket is looked through for new and removed blocks.", "15m",
		&c.interval, positive(goDuration),
	)
	flag(
		f, "block-meta-fetch-concurrency",
		"Number of meta.json and deletion marks that are read at once.", "32", &c.concurrency,
		integer(1),
	)
	flag(
		f, "block-discovery-strategy",
		"How blocks are found: concurrent (one request per unknown block) or recursive (one listing of every object).",
		"concurrent", &c.discovery, oneOf("concurrent", "recursive"),
	)
	flag(
		f, "min-time",
		"Start of the time range to serve: an RFC 3339 time, or a duration relative to now such as -6w.",
		"0000-01-01T00:00:00Z", &c.minTime, catalog.ParseTimeOrDuration,
	)
	flag(
		f, "max-time",
		"End of the time range to serve: an RFC 3339 time, or a duration relative to now such as -2h.",
		"9999-12-31T23:59:59Z", &c.maxTime, catalog.ParseTimeOrDuration,
	)
	contentFlags(
		f, &c.relabelYAML, "selector.relabel-config",
		"selects the blocks to serve by their external labels and __block_id; actions keep, drop and hashmod.",
	)
	flag(
		f, "consistency-delay", "Minimum age of a block before it is served.", "0s",
		&c.consistencyDelay, promDuration,
	)
	flag(
		f, "ignore-deletion-marks-delay",
		"Age of a deletion mark from which its block is not served any more.", "24h",
		&c.deletionMarksDelay, promDuration,
	)
}

func (c *blocksConfig) load(now time.Time) (err error) {
	if c.minTime.Millis(now, math.MinInt64) > c.maxTime.Millis(now, math.MaxInt64) {
		return fmt.Errorf("--min-time %s is after --max-time %s", c.minTime, c.maxTime)
	}
	if c.relabelText, err = c.relabelYAML.read(); err != nil {
		return err
	}
	c.relabel, err = catalog.ParseRelabelConfig(c.relabelText)
	return c.relabelYAML.wrap(err)
}

// clamp narrows a range of time to the one that is served now: relative times move on.
func (c *blocksConfig) clamp(minT, maxT int64) (int64, int64) {
	now := time.Now()
	return max(
			minT,
			c.minTime.Millis(now, math.MinInt64),
		), min(
			maxT, c.maxTime.Millis(now, math.MaxInt64),
		)
}

// openCatalog opens the catalog. It keeps its last view in dir, if there is one, and calls lockDir
// before each write there.
func (b *backend) openCatalog(
	parquet catalog.ParquetBucket, dir localfs.Dir, lockDir func() error, reg prometheus.Registerer,
) (err error) {
	conf, m := &b.conf.blocks, &b.conf.caches.Memory
	b.catalog, err = catalog.New(catalog.Options{
		Bucket: b.bound, BucketName: b.blocks.Name(), Prefix: b.conf.bucket.parsed.Prefix,
		FinalError: retry.Final, Parquet: parquet, Dir: dir, LockDir: lockDir,
		Discovery: catalog.Discovery(conf.discovery), Interval: conf.interval,
		Concurrency: conf.concurrency, DocumentBytes: m.Documents - 2*m.WholeObjects(),
		MinTime: conf.minTime, MaxTime: conf.maxTime, Relabel: conf.relabel,
		ConsistencyDelay:         conf.consistencyDelay,
		IgnoreDeletionMarksDelay: conf.deletionMarksDelay,
		Opened:                   b.opened, OnChange: b.viewChanged,
		Logger: b.logger, Registerer: reg,
	})
	if err != nil {
		return err
	}
	b.onClose(b.catalog.Close)
	return nil
}
