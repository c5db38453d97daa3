package main

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/bucket/retry"
	"larder/internal/config"
	"larder/internal/localfs"
	"larder/store/catalog"
	"larder/store/indexheader"
)

// headersConfig has the flags of index headers.
type headersConfig struct {
	idle        time.Duration // negative: never
	wait        time.Duration // 0: no wait
	concurrency int
}

func (c *headersConfig) flags(f flagger) {
	flag(f, "store.index-header-lazy-reader-idle-timeout", "5m", &c.idle, goDuration,
		"Close an index header that no query has used for this time. 0 = never.").Hidden()
	flag(f, "wait-headers", "0s", &c.wait, promDuration,
		"Report ready only once the index headers of all blocks newer than this age are loaded. "+
			"0 = report ready as soon as the blocks are known.")
	flag(f, "block-sync-concurrency", "20", &c.concurrency, integer(1),
		"Maximum number of index headers built concurrently.")
}

func (c *headersConfig) load() {
	if c.idle == 0 {
		c.idle = -1 // the option treats 0 as its default
	}
}

// openHeaders opens the manager of index headers. It keeps them in dir, or in memory
// without one, and calls lockDir before each write there.
func (b *backend) openHeaders(
	dir localfs.Dir, lockDir func() error, reg prometheus.Registerer,
) (err error) {
	conf, m := &b.conf.headers, &b.conf.caches.Memory
	o := indexheader.Options{
		Dir: dir, LockDir: lockDir, Bucket: b.bound,
		MaxOpenBytes: m.Headers, BlockCacheBytes: orNone(m.CacheBytes[config.HeaderBlocks]),
		BuildBytes: m.Builds, BuildConcurrency: conf.concurrency, IdleTimeout: conf.idle,
		Measure: b.measure, Unsatisfiable: retry.Unsatisfiable,
		Logger: b.logger, Registerer: reg,
	}
	if m.Disk.Total.Bytes > 0 && m.Disk.Prefetch.Bytes > 0 {
		o.OnRead, o.PageSize = b.keepRead, m.Page[config.IndexPages].Bytes
	}
	if b.headers, err = indexheader.New(o); err != nil {
		return err
	}
	b.onClose(b.headers.Close)
	return nil
}

// measure asks the bucket for the sizes of a block's files. The catalog exists before the first
// header is built.
func (b *backend) measure(
	ctx context.Context, src indexheader.Source, corrupt bool,
) (changed bool, err error) {
	doubt := catalog.SizeDoubt
	if corrupt {
		doubt = catalog.BytesDoubt
	}
	verdict, err := b.catalog.Measure(ctx, src.ID, src.Content, doubt)
	return verdict == catalog.Changed, err
}

// waitHeaders waits for the headers of recent blocks, see --wait-headers. It does not wait for a
// header that cannot be built, because one bad block must not prevent readiness.
func (b *backend) waitHeaders(ctx context.Context) error {
	if b.conf.headers.wait == 0 {
		return nil
	}
	since := time.Now().Add(-b.conf.headers.wait).UnixMilli()
	var recent []ulid.ULID
	for _, blk := range b.catalog.View().Blocks {
		if blk.MaxTime > since {
			recent = append(recent, blk.ID)
		}
	}
	b.logger.Info("waiting for index headers", "blocks", len(recent))
	return b.headers.Wait(ctx, recent)
}
