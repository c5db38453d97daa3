package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/chunkcache"
	"larder/indexcache"
	"larder/internal/config"
	"larder/internal/localfs"
	"larder/store/warm"
)

// warmConfig has the flags of cache warming.
type warmConfig struct {
	maxTime  time.Duration
	maxBytes int64
	wait     time.Duration
}

func (c *warmConfig) flags(f flagger) {
	flag(f, "warm.max-time", "2m", &c.maxTime, goDuration,
		"Maximum time to warm caches with recently requested series, after a start and "+
			"before a compacted block replaces its sources. The sources are served until then. "+
			"0 = do not warm caches.")
	flag(f, "warm.max-bytes", "128MB", &c.maxBytes, config.ParseSize,
		"Maximum index bytes read during cache warming, "+
			"and never more than half of the memory for index pages. Bytes in memory count an "+
			"eighth. A hand-over between shards, and a restart with a disk cache, read as many "+
			"bytes of hot pages besides. 0 = do not warm caches.")
	flag(f, "warm.wait", "2s", &c.wait, goDuration,
		"Maximum time for which a process that warms its caches after a start is not ready. "+
			"A process without a record of earlier requests does not wait. 0 = do not wait.")
}

// openWarmer creates the warmer of two caches. It keeps its snapshot in dir, if there is one, and
// calls lockDir before each write there.
func (b *backend) openWarmer(
	rec *warm.Recorder, index *indexcache.Cache, chunks *chunkcache.Cache, dir localfs.Dir,
	lockDir func() error, reg prometheus.Registerer,
) {
	conf := b.conf.warm
	if n := index.Stats().MaxBytes; n > 0 {
		conf.maxBytes = min(conf.maxBytes, max(n/2, 1))
	}
	b.warmer = warm.New(warm.Options{
		Recorder: rec, Store: b.server, Headers: b.headers, Index: index, Chunks: chunks,
		HasDisk: b.disk != nil, Dir: dir, LockDir: lockDir,
		MaxTime: conf.maxTime, MaxBytes: conf.maxBytes,
		Logger: b.logger, Registerer: reg,
	})
	b.heat.Store(b.warmer)
	b.onClose(b.warmer.Close)
}

// on reports whether cache warming is on.
func (c *warmConfig) on() bool { return c.maxTime > 0 && c.maxBytes > 0 }

// waitWarm waits until caches are warm after a start, see --warm.wait. The first requests then find
// caches, memory and code that a request has used before.
func (b *backend) waitWarm(ctx context.Context) error {
	if b.warmer == nil || b.conf.warm.wait == 0 {
		return nil
	}
	timeout := time.NewTimer(b.conf.warm.wait)
	defer timeout.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-b.warmer.Started():
	case <-timeout.C:
		b.logger.Info("ready before caches are warm", "waited", b.conf.warm.wait)
	}
	return nil
}

// warm warms caches in the background once the blocks are known. It records requests for the next
// start until ctx ends.
func (b *backend) warm(ctx context.Context) {
	if b.warmer == nil {
		return
	}
	select {
	case <-ctx.Done():
	case <-b.known:
		b.warmer.Run(ctx)
	}
}
