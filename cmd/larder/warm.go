package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/config"
	"larder/internal/localfs"
	"larder/store/warm"
)

// warmConfig has the flags of cache warming.
type warmConfig struct {
	maxTime  time.Duration
	maxBytes int64
}

func (c *warmConfig) flags(f flagger) {
	flag(f, "warm.max-time", "2m", &c.maxTime, goDuration,
		"Maximum time to warm caches with recently requested series, after a start and "+
			"before a compacted block replaces its sources. The sources are served until then. "+
			"0 = do not warm caches.")
	flag(f, "warm.max-bytes", "128MB", &c.maxBytes, config.ParseSize,
		"Maximum index bytes read during cache warming, "+
			"and never more than half of the memory for index pages. 0 = do not warm caches.")
}

// openWarmer creates the warmer. It keeps its snapshot in dir, if there is one, and calls lockDir
// before each write there. indexBytes is the memory for index pages, 0 for none.
func (b *backend) openWarmer(
	rec *warm.Recorder, dir localfs.Dir, lockDir func() error, indexBytes int64,
	reg prometheus.Registerer,
) {
	conf := b.conf.warm
	if indexBytes > 0 {
		conf.maxBytes = min(conf.maxBytes, max(indexBytes/2, 1))
	}
	b.warmer = warm.New(warm.Options{
		Recorder: rec, Store: b.server, Headers: b.headers, Dir: dir, LockDir: lockDir,
		MaxTime: conf.maxTime, MaxBytes: conf.maxBytes,
		Logger: b.logger, Registerer: reg,
	})
	b.onClose(b.warmer.Close)
}

// on reports whether cache warming is on.
func (c *warmConfig) on() bool { return c.maxTime > 0 && c.maxBytes > 0 }

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
