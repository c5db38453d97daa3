package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alecthomas/units"
	"github.com/prometheus/client_golang/prometheus"

	"larder/indexcache"
	"larder/internal/bucket/cost"
	"larder/internal/bytecache"
	"larder/internal/config"
	"larder/internal/datadir"
	"larder/internal/diskcache"
	"larder/internal/localfs"
	"larder/store/indexheader"
	"larder/store/prefetch"
	"larder/store/warm"
)

// diskCacheConfig has the flags of the disk cache that are not bytes of memory or disk.
type diskCacheConfig struct {
	writeRate    config.Amount
	writesPerDay config.Amount
	prefetchRate config.Amount // least bytes a second; 0: none
}

// diskCacheFlags registers the flags of the disk cache.
func (c *cachesConfig) diskCacheFlags(f flagger) {
	d := &c.Memory.Disk
	d.Total.From, d.Index.From = "--disk-cache-size", "--disk-cache.index-size"
	flag(f, "disk-cache-size", "0", &d.Total.Bytes, config.ParseSize,
		"Limit of pages of indexes and chunk files in <data-dir>/larder/disk, which a restart "+
			"keeps. They need about 0.1 % of it in memory. 0 = cache nothing on disk.").
		IsSetByUser(&d.Total.Given)
	flag(f, "disk-cache.index-size", "", &d.Index.Bytes, positive(config.ParseSize),
		"Part of --disk-cache-size for index pages. Chunk pages get the rest. Default: 40 %.").
		PlaceHolder("SIZE").IsSetByUser(&d.Index.Given)
	w := &c.disk
	w.writeRate.From, w.writesPerDay.From = "--disk-cache.write-rate", "--disk-cache.writes-per-day"
	w.prefetchRate.From = "--disk-cache.prefetch-min-rate"
	flag(f, "disk-cache.write-rate", "32MB", &w.writeRate.Bytes, positive(config.ParseSize),
		"Limit of bytes that the disk cache writes in a second.").
		IsSetByUser(&w.writeRate.Given)
	flag(f, "disk-cache.writes-per-day", "", &w.writesPerDay.Bytes, config.ParseSize,
		"Limit of bytes that the disk cache writes in a day, because writes wear out flash. "+
			"Default: three times --disk-cache-size. 0 = no limit.").
		PlaceHolder("SIZE").IsSetByUser(&w.writesPerDay.Given)
	d.Prefetch.From = "--disk-cache.prefetch-bytes"
	flag(f, "disk-cache.prefetch-bytes", "", &d.Prefetch.Bytes, config.ParseSize,
		"Limit of indexes that are read into the disk cache in the background: those of recently "+
			"queried blocks and of the newest ones. Default: three quarters of the part for "+
			"index pages. 0 = read only what queries need.").
		PlaceHolder("SIZE").IsSetByUser(&d.Prefetch.Given)
	flag(f, "disk-cache.prefetch-min-rate", "1MB", &w.prefetchRate.Bytes, config.ParseSize,
		"Bytes of indexes that are read into the disk cache in a second even if queries use all "+
			"reads of the bucket. 0 = queries may delay them without a bound.").
		IsSetByUser(&w.prefetchRate.Given)
}

// checkDiskCache checks flags of the disk cache against each other.
func (c *storeConfig) checkDiskCache() error {
	d := &c.caches.Memory.Disk
	switch {
	case d.Total.Bytes == 0 && d.Index.Given:
		return errors.New("--disk-cache.index-size is a part of --disk-cache-size, which is 0")
	case d.Total.Bytes > 0 && !c.dataDir.cacheIndexHeader:
		return errors.New("--disk-cache-size needs the data directory: " +
			"remove --no-cache-index-header")
	case d.Total.Bytes == 0 && d.Prefetch.Given && d.Prefetch.Bytes > 0:
		return errors.New("--disk-cache.prefetch-bytes needs --disk-cache-size, which is 0")
	}
	conf := &c.caches.disk
	for _, a := range []*config.Amount{&conf.writeRate, &conf.writesPerDay, &conf.prefetchRate} {
		if d.Total.Bytes == 0 && a.Given {
			return fmt.Errorf("%s needs --disk-cache-size, which is 0", a.From)
		}
	}
	if d.Prefetch.Given && d.Prefetch.Bytes == 0 && conf.prefetchRate.Given {
		return errors.New(
			"--disk-cache.prefetch-min-rate has no effect with --disk-cache.prefetch-bytes=0")
	}
	w := &conf.writesPerDay
	if !w.Given {
		const times = 3
		w.Bytes = times * d.Total.Bytes
	} else if w.Bytes > 0 && w.Bytes < diskcache.MinWritesPerDay {
		return fmt.Errorf("%s is too little to write anything: set at least %s, or 0 for no limit",
			w, units.Base2Bytes(diskcache.MinWritesPerDay))
	}
	return nil
}

// openDisk opens the disk of the disk cache, if there is one.
func (b *backend) openDisk(dir *datadir.Dir, costs *cost.Meter, reg prometheus.Registerer) {
	if b.conf.caches.Memory.Disk.Total.Bytes == 0 || dir == nil {
		return
	}
	o := diskcache.DiskOptions{
		Dir: dir.At().Sub("disk"), LockDir: dir.Lock,
		FirstByte: b.firstByte, Bucket: costs.Model,
		WriteRate:    b.conf.caches.disk.writeRate.Bytes,
		WritesPerDay: b.conf.caches.disk.writesPerDay.Bytes,
		Logger:       b.logger, Registerer: reg,
	}
	if fixed := b.conf.hooks.constants.disk; fixed > 0 {
		o.Timeout, o.FirstByte = fixed, nil
	}
	b.disk = diskcache.OpenDisk(o)
	b.onClose(b.disk.Close)
}

// firstByte returns the time within which the bucket usually answers, 0 if it is not known.
func (b *backend) firstByte() (p95 time.Duration) {
	for _, r := range []*readerPointer{&b.indexReader, &b.chunkReader} {
		if r := r.Load(); r != nil {
			p95 = max(p95, r.FirstByteP95())
		}
	}
	return p95
}

// diskCache returns a function that opens the cache of a kind on the disk, nil for none.
func (b *backend) diskCache(k config.Kind, name string) func(pageBytes int64) bytecache.Disk {
	if b.disk == nil || b.conf.caches.Uncached[k] {
		return nil
	}
	o := b.conf.caches.Memory.DiskOptions(k)
	o.Kind = name
	if k == config.IndexPages {
		o.Evicted = func(objects []bytecache.ID) {
			if p := b.prefetch.Load(); p != nil {
				p.Evicted(objects)
			}
		}
	}
	return func(pageBytes int64) bytecache.Disk {
		o.PageBytes = pageBytes
		c := b.disk.Open(o)
		b.diskCaches = append(b.diskCaches, c)
		if k == config.IndexPages {
			b.indexDisk = c
		}
		return c
	}
}

// prefetches reports whether indexes are read before queries need them.
func (b *backend) prefetches() bool {
	return b.indexDisk != nil && b.conf.caches.Memory.Disk.Prefetch.Bytes > 0
}

// openPrefetch opens what reads indexes into the disk cache. recorder knows what was queried.
func (b *backend) openPrefetch(
	index *indexcache.Cache, recorder *warm.Recorder, dir localfs.Dir, lockDir func() error,
	reg prometheus.Registerer,
) {
	d := &b.conf.caches.Memory.Disk
	b.prefetch.Store(prefetch.New(prefetch.Options{
		Pages: index, Disk: b.indexDisk, Headers: b.headers,
		MaxBytes: d.Prefetch.Bytes, ReadBytes: d.PrefetchRead,
		MinRate: orNone(b.conf.caches.disk.prefetchRate.Bytes),
		Queried: recorder.Recent, Busy: b.server.Busy, Dir: dir, LockDir: lockDir,
		Logger: b.logger, Registerer: reg,
	}))
}

// keepRead passes on what builds of headers have read of an index.
func (b *backend) keepRead(rd indexheader.Read) {
	if p := b.prefetch.Load(); p != nil {
		p.Keep(rd)
	}
}

// awaitDisk waits until the disk cache knows what an earlier process left there, so that warming
// reads it from there. It does not wait long for a disk that hangs.
func (b *backend) awaitDisk(ctx context.Context) {
	const patience = 30 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, c := range b.diskCaches {
		select {
		case <-c.Loaded():
		case <-ctx.Done():
			return
		}
	}
}

// reportDisk logs what an earlier process left in the disk cache, once that is known. It logs
// nothing if the disk fails, which is logged already.
func (b *backend) reportDisk(ctx context.Context) {
	if len(b.diskCaches) == 0 {
		return
	}
	var pages, bytes int64
	for _, c := range b.diskCaches {
		select {
		case <-c.Loaded():
		case <-ctx.Done():
			return
		}
		p, n, ok := c.Kept()
		if !ok {
			return
		}
		pages, bytes = pages+p, bytes+n
	}
	if pages == 0 {
		b.logger.Info("disk cache is empty and starts cold")
		return
	}
	b.logger.Info("disk cache starts with pages of an earlier process",
		"pages", pages, "bytes", bytes)
}
