package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/config"
	"larder/internal/datadir"
	"larder/internal/pagecache"
	"larder/internal/pagetrace"
)

// pageTraceConfig has the flag of the page trace.
type pageTraceConfig struct {
	bytes int64 // 0: none
}

func (c *pageTraceConfig) flags(f flagger) {
	flag(f, "page-trace-size", "0", &c.bytes, config.ParseSize,
		"Limit of a trace of page accesses in <data-dir>/larder/page-trace, from which "+
			"larder bench curves computes hit ratios of other cache sizes. A start replaces it. "+
			"0 = record none.")
}

// checkPageTrace checks the flag against others.
func (c *storeConfig) checkPageTrace() error {
	if c.pageTrace.bytes > 0 && !c.dataDir.cacheIndexHeader {
		return errors.New("--page-trace-size needs the data directory: " +
			"remove --no-cache-index-header")
	}
	return nil
}

// The caches of a page trace.
const (
	tracedIndex = iota
	tracedChunks
)

// openPageTrace begins the page trace, if there is to be one.
func (b *backend) openPageTrace(dir *datadir.Dir, reg prometheus.Registerer) error {
	if b.conf.pageTrace.bytes == 0 || dir == nil {
		return nil
	}
	m := &b.conf.caches.Memory
	h := pagetrace.Header{Start: time.Now().UTC()}
	for _, c := range []struct {
		name string
		kind config.Kind
	}{tracedIndex: {"index", config.IndexPages}, tracedChunks: {"chunks", config.ChunkPages}} {
		disk := m.DiskOptions(c.kind)
		h.Caches = append(h.Caches, pagetrace.Cache{
			Kind: c.name, PageBytes: m.Page[c.kind].Bytes, MemoryBytes: m.CacheBytes[c.kind],
			DiskBytes: disk.MaxBytes, DiskSecondUse: disk.SecondUse,
		})
	}
	trace, err := pagetrace.Record(pagetrace.Options{
		Dir: dir.At(), LockDir: dir.Lock, Header: h, MaxBytes: b.conf.pageTrace.bytes,
		Logger: b.logger, Registerer: reg,
	})
	if err != nil {
		return fmt.Errorf("--page-trace-size: %w", err)
	}
	b.pageTrace = trace
	b.onClose(trace.Close)
	return nil
}

// traced returns the options of a cache's pages, which record their accesses if there is a trace.
func (b *backend) traced(o pagecache.Options, cache int) pagecache.Options {
	if t := b.pageTrace; t != nil {
		o.Accesses = func(object uint64, pages []int64) { t.Note(cache, object, pages) }
	}
	return o
}
