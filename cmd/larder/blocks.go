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

// blocksConfig has the flags for finding and selecting blocks.
type blocksConfig struct {
	interval           time.Duration
	discovery          string
	concurrency        int
	minTime, maxTime   catalog.TimeOrDuration
	consistencyDelay   time.Duration
	deletionMarksDelay time.Duration
	hashmodPatience    time.Duration
	relabelYAML        content

	// set by load
	relabel     []*relabel.Config
	relabelText []byte // the document of relabel
}

func (c *blocksConfig) flags(f flagger) {
	flag(f, "sync-block-duration", "15m", &c.interval, positive(goDuration),
		"Interval between syncs, which look for new and deleted blocks in the bucket.")
	flag(f, "block-discovery-strategy", "concurrent", &c.discovery,
		oneOf("concurrent", "recursive"),
		"How to find blocks: concurrent (one request for each unknown block) "+
			"or recursive (one listing of all objects).")
	flag(f, "selector.hashmod-patience", "0s", &c.hashmodPatience, promDuration,
		"Time to go on serving blocks that leave because the modulus or the kept remainders of "+
			"the hashmod rule in --selector.relabel-config changed, also by a restart. Any other "+
			"change of the rules acts at once. 0 = these blocks leave at once too.")
	c.selectionFlags(f)
}

// selectionFlags registers the flags that commands share which read the list of blocks.
func (c *blocksConfig) selectionFlags(f flagger) {
	flag(f, "block-meta-fetch-concurrency", "256", &c.concurrency, integer(1),
		"Maximum number of meta.json files and deletion marks read concurrently. "+
			"The slots for reads of the bucket bound it too.")
	flag(f, "min-time", "0000-01-01T00:00:00Z", &c.minTime, catalog.ParseTimeOrDuration,
		"Start of the time range to serve: an RFC 3339 time, "+
			"or a duration relative to now such as -6w.")
	flag(f, "max-time", "9999-12-31T23:59:59Z", &c.maxTime, catalog.ParseTimeOrDuration,
		"End of the time range to serve: an RFC 3339 time, "+
			"or a duration relative to now such as -2h.")
	contentFlags(f, &c.relabelYAML, "selector.relabel-config",
		"the relabelling rules that select the blocks to serve "+
			"by external labels and __block_id. Actions: keep, drop, hashmod.")
	flag(f, "consistency-delay", "0s", &c.consistencyDelay, promDuration,
		"Minimum age of a block before it is served. 0 = serve new blocks at once.")
	flag(f, "ignore-deletion-marks-delay", "24h", &c.deletionMarksDelay, promDuration,
		"Time to go on serving a block after it was marked for deletion. "+
			"0 = stop serving it at once.")
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

// clamp narrows a time range to the one that is served now. Relative times move with the clock.
func (c *blocksConfig) clamp(minT, maxT int64) (int64, int64) {
	now := time.Now()
	return max(minT, c.minTime.Millis(now, math.MinInt64)),
		min(maxT, c.maxTime.Millis(now, math.MaxInt64))
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
		Shard: b.shardOrNil(), ConsistencyDelay: conf.consistencyDelay,
		HashmodPatience:          conf.hashmodPatience,
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
