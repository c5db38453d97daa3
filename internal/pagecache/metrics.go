package pagecache

import (
	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/bytecache"
)

// metrics are the metrics of one reader. The label kind is constant, so that the readers of a
// process can share names.
type metrics struct {
	touched, hits, coalesced, fetched                      prometheus.Counter
	touchedBytes, hitBytes, coalescedBytes, fetchedBytes   prometheus.Counter
	diskHits, diskHitBytes                                 prometheus.Counter
	remoteHits, remoteHitBytes, joined                     prometheus.Counter
	reads, readFailures, readRetries, abandoned, refetches prometheus.Counter
	readBytes                                              prometheus.Histogram

	registerer prometheus.Registerer
	collectors []prometheus.Collector
}

func newMetrics(reg prometheus.Registerer, kind string) *metrics {
	m := &metrics{}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		m.collectors = append(m.collectors, c)
		return c
	}
	tiers := func(name, help string) (memory, disk, remote prometheus.Counter) {
		v := prometheus.NewCounterVec(
			prometheus.CounterOpts{Name: name, Help: help}, []string{"tier"},
		)
		m.collectors = append(m.collectors, v)
		return v.WithLabelValues(bytecache.TierMemory), v.WithLabelValues(bytecache.TierDisk),
			v.WithLabelValues(bytecache.TierMemcached)
	}
	m.touched = counter("larder_pages_touched_total", "Pages that requests needed.")
	m.touchedBytes = counter(
		"larder_pages_touched_bytes_total", "Bytes of the pages that requests needed.",
	)
	const hits, hitBytes = "larder_pages_hits_total", "larder_pages_hits_bytes_total"
	const (
		hitsHelp     = "Pages that requests needed and found in a tier of the cache."
		hitBytesHelp = "Bytes of the pages that requests needed and found in a tier of the cache."
	)
	m.hits, m.diskHits, m.remoteHits = tiers(hits, hitsHelp)
	m.hitBytes, m.diskHitBytes, m.remoteHitBytes = tiers(hitBytes, hitBytesHelp)
	m.joined = counter(
		"larder_pages_lookups_joined_total",
		"Pages that a request waited for in another request's look-up on the disk or in memcached.",
	)
	m.coalesced = counter(
		"larder_pages_coalesced_total",
		"Pages that requests got from a running read or look-up of another request.",
	)
	m.coalescedBytes = counter(
		"larder_pages_coalesced_bytes_total",
		"Bytes of the pages that requests got from a running read or look-up of another request.",
	)
	m.fetched = counter(
		"larder_pages_fetched_total",
		"Pages requested from the bucket, including pages in the gaps between needed ones.",
	)
	m.fetchedBytes = counter("larder_pages_fetched_bytes_total", "Bytes requested from the bucket.")
	m.reads = counter("larder_bucket_reads_total", "Ranged reads of the bucket that were started.")
	m.readFailures = counter(
		"larder_bucket_read_failures_total", "Ranged reads of the bucket that failed.",
	)
	m.readRetries = counter(
		"larder_bucket_read_retries_total",
		"Ranged reads of the bucket repeated because the body was longer than the range.",
	)
	m.abandoned = counter(
		"larder_bucket_reads_abandoned_total",
		"Ranged reads of the bucket that were cancelled because no request waited for them.",
	)
	m.refetches = counter(
		"larder_pages_refetches_total",
		"Pages dropped and read again because their bytes did not match a checksum.",
	)
	m.readBytes = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "larder_bucket_read_bytes",
		Help:    "Bytes requested by a ranged read of the bucket.",
		Buckets: prometheus.ExponentialBuckets(8<<10, 4, 6),
	})
	m.collectors = append(m.collectors, m.readBytes)
	if reg != nil {
		m.registerer = prometheus.WrapRegistererWith(prometheus.Labels{"kind": kind}, reg)
		m.registerer.MustRegister(m.collectors...)
	}
	return m
}

// unregister frees the names for another reader of the same kind.
func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.collectors {
		m.registerer.Unregister(c)
	}
}
