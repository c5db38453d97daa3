package store

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/pagecache"
)

// fetchMetrics record what requests read and from where, with the metrics of Thanos's index cache
// and caching bucket. larder caches pages, therefore a page counts as an item. A page of posting
// lists counts as Postings, a page of series entries as Series, and a page of a chunk file as a
// range of the caching bucket. A page that a concurrent read of another request fetches is not a
// hit.
type fetchMetrics struct {
	indexRequests, indexHits     *prometheus.CounterVec
	chunkRequests, chunkHits     prometheus.Counter
	chunkBytes                   prometheus.Counter
	chunkFromCache, chunkFetched prometheus.Counter

	postingsSeconds                  *prometheus.HistogramVec
	seriesSeconds, seriesWaitSeconds *prometheus.HistogramVec
	chunksSeconds, chunksWaitSeconds *prometheus.HistogramVec
}

// Item types of Thanos's index cache.
const (
	itemPostings = "Postings"
	itemSeries   = "Series"
	itemExpanded = "ExpandedPostings"
)

func newFetchMetrics(f factory) fetchMetrics {
	const (
		index  = "thanos_store_index_cache_"
		bucket = "thanos_store_bucket_cache_"
		store  = "thanos_bucket_store_"
	)
	// Names of the caching bucket for chunk files and ranged reads.
	const config, operation, origin = "chunks", "getrange", "origin"
	seconds := func(name, help string) *prometheus.HistogramVec {
		return f.histograms(store+name, help, secondsBuckets, "tenant")
	}
	fetched := f.counters(bucket+"getrange_fetched_bytes_total",
		"Bytes of chunk pages that requests read, by origin: cache or bucket.", origin, "config")
	m := fetchMetrics{
		indexRequests: f.counters(index+"requests_total",
			"Index pages that requests needed, by type of item.", "item_type", "tenant"),
		indexHits: f.counters(index+"hits_total",
			"Index pages that requests found in the cache, by type of item.", "item_type",
			"tenant"),

		chunkRequests: f.counters(bucket+"operation_requests_total",
			"Chunk pages that requests needed.", "operation", "config",
		).WithLabelValues(operation, config),
		chunkHits: f.counters(bucket+"operation_hits_total",
			"Chunk pages that requests found in the cache.", "operation", "config",
		).WithLabelValues(operation, config),
		chunkBytes: f.counters(bucket+"getrange_requested_bytes_total",
			"Bytes of chunk pages that requests needed.", "config",
		).WithLabelValues(config),
		chunkFromCache: fetched.WithLabelValues("cache", config),
		chunkFetched:   fetched.WithLabelValues("bucket", config),

		postingsSeconds: seconds("postings_fetch_duration_seconds",
			"Seconds that a request needed to find the postings of all blocks."),
		seriesSeconds: seconds("series_fetch_duration_seconds",
			"Seconds that a request needed to read, decode and merge its series entries."),
		seriesWaitSeconds: seconds("series_fetch_duration_sum_seconds",
			"Seconds that a request waited for uncached series pages, summed over its blocks."),
		chunksSeconds: seconds("chunks_fetch_duration_seconds",
			"Seconds that a request needed to read its chunks."),
		chunksWaitSeconds: seconds("chunks_fetch_duration_sum_seconds",
			"Seconds that a request waited for uncached chunk pages, summed over its blocks."),
	}
	for _, item := range []string{itemPostings, itemSeries, itemExpanded} {
		m.indexRequests.WithLabelValues(item, f.names.first())
		m.indexHits.WithLabelValues(item, f.names.first())
	}
	return m
}

func (m *fetchMetrics) observe(r *request, label string) {
	for _, k := range [...]struct {
		item string
		acct *pagecache.Account
	}{{itemPostings, &r.postings}, {itemSeries, &r.seriesPages}} {
		if n := k.acct.Touched.Load(); n > 0 {
			m.indexRequests.WithLabelValues(k.item, label).Add(float64(n))
			m.indexHits.WithLabelValues(k.item, label).
				Add(float64(k.acct.Hits.Load() + k.acct.RemoteHits.Load()))
		}
	}
	if n := r.planned.Lookups; n > 0 {
		m.indexRequests.WithLabelValues(itemExpanded, label).Add(float64(n))
		m.indexHits.WithLabelValues(itemExpanded, label).Add(float64(r.planned.Cached))
	}
	m.chunkRequests.Add(float64(r.chunkPages.Touched.Load()))
	m.chunkHits.Add(float64(r.chunkPages.Hits.Load() + r.chunkPages.RemoteHits.Load()))
	m.chunkBytes.Add(float64(r.chunkPages.TouchedBytes.Load()))
	m.chunkFromCache.Add(float64(r.chunkPages.HitBytes.Load() + r.chunkPages.RemoteHitBytes.Load()))
	m.chunkFetched.Add(float64(r.chunkPages.FetchedBytes.Load()))

	stage := func(h *prometheus.HistogramVec, id stageID) {
		if d := r.stages[id].Load(); d > 0 {
			r.observe(h.WithLabelValues(label), time.Duration(d).Seconds())
		}
	}
	waited := func(h *prometheus.HistogramVec, acct *pagecache.Account) {
		if acct.Touched.Load() > 0 {
			r.observe(h.WithLabelValues(label), time.Duration(acct.Waited.Load()).Seconds())
		}
	}
	stage(m.postingsSeconds, stagePostings)
	stage(m.seriesSeconds, stageSeries)
	waited(m.seriesWaitSeconds, &r.seriesPages)
	stage(m.chunksSeconds, stageChunks)
	waited(m.chunksWaitSeconds, &r.chunkPages)
}
