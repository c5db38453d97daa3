package indexcache

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/bytecache"
)

// Item types of the cache. A page may hold both postings and series entries. Package store counts
// for which of them requests read pages.
const (
	pageItem     = "Pages"
	postingsItem = "ExpandedPostings"
)

// collector exports metrics of pages and postings, under the names of Thanos's index cache.
type collector struct {
	cache    *Cache
	pageSize int64

	items, itemBytes, totalBytes, added, evicted, overflowed *prometheus.Desc
	maxBytes, maxItemBytes                                   *prometheus.Desc
}

func newCollector(c *Cache) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("thanos_store_index_cache_"+name, help, labels, nil)
	}
	return &collector{
		cache:    c,
		pageSize: int64(c.PageSize()),
		items:    desc("items", "Values in the cache.", "item_type"),
		itemBytes: desc("items_size_bytes",
			"Bytes of the values in the cache, without bookkeeping.", "item_type"),
		totalBytes: desc("total_size_bytes",
			"Bytes of the values in the cache, bookkeeping included.", "item_type"),
		added: desc("items_added_total", "Values added to the cache.", "item_type"),
		evicted: desc(
			"items_evicted_total", "Values that were added and have left the cache.", "item_type",
		),
		overflowed: desc("items_overflowed_total",
			"Values that were not added because they were too large.", "item_type"),
		maxBytes: desc("max_size_bytes", "Limit of the bytes of pages and expanded postings."),
		maxItemBytes: desc(
			"max_item_size_bytes", "Largest size of an index page in bytes.",
		),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.items, c.itemBytes, c.totalBytes, c.added, c.evicted, c.overflowed, c.maxBytes,
		c.maxItemBytes,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	pages, postings := c.cache.Stats(), c.cache.postings.Stats()
	send := func(d *prometheus.Desc, t prometheus.ValueType, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, float64(v), labels...)
	}
	for _, of := range [...]struct {
		item string
		st   bytecache.Stats
	}{{pageItem, pages}, {postingsItem, postings}} {
		send(c.items, prometheus.GaugeValue, of.st.Items, of.item)
		send(c.itemBytes, prometheus.GaugeValue, of.st.ValueBytes, of.item)
		send(c.totalBytes, prometheus.GaugeValue, of.st.Bytes, of.item)
		send(c.added, prometheus.CounterValue, of.st.Added, of.item)
		send(c.evicted, prometheus.CounterValue, of.st.Departed, of.item)
		send(c.overflowed, prometheus.CounterValue, of.st.TooLarge, of.item)
	}
	send(c.maxBytes, prometheus.GaugeValue, pages.MaxBytes+postings.MaxBytes)
	send(c.maxItemBytes, prometheus.GaugeValue, c.pageSize)
}

// postingsCollector exports look-ups of expanded postings.
type postingsCollector struct {
	postings *Postings

	requests, hits, joined *prometheus.Desc
}

func newPostingsCollector(p *Postings) *postingsCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("larder_expanded_postings_"+name, help, labels, nil)
	}
	return &postingsCollector{
		postings: p,
		requests: desc(
			"requests_total", "Look-ups of the postings that matchers select in a block.",
		),
		hits: desc("hits_total", "Look-ups that found the postings, by tier.", "tier"),
		joined: desc("coalesced_total",
			"Look-ups that waited for the expansion of another request."),
	}
}

// Describe implements prometheus.Collector.
func (c *postingsCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.requests, c.hits, c.joined} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *postingsCollector) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	send(c.requests, c.postings.requests.Load())
	send(c.hits, c.postings.memoryHits.Load(), "memory")
	send(c.hits, c.postings.remoteHits.Load(), "memcached")
	send(c.joined, c.postings.joined.Load())
}

// setsCollector exports what the cache of series sets counts besides what every cache does
// (larder_cache_*{cache="series_sets"}).
type setsCollector struct {
	counts   *setCounts
	reserved *atomic.Int64

	coalescedDesc, heldDesc, abandonedDesc *prometheus.Desc
}

func newSetsCollector(counts *setCounts, reserved *atomic.Int64) *setsCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("larder_series_sets_"+name, help, labels, nil)
	}
	return &setsCollector{
		counts: counts, reserved: reserved,
		coalescedDesc: desc("coalesced_total",
			"Plans of a block that used a series set which another request was building."),
		heldDesc: desc("held_bytes",
			"Bytes of series sets that are under construction, or evicted and still read."),
		abandonedDesc: desc("abandoned_total",
			"Series sets whose construction was abandoned: they were too large to be kept "+
				"(too_large), or memory for sets under construction was used up (no_room).",
			"reason"),
	}
}

// Describe implements prometheus.Collector.
func (c *setsCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.coalescedDesc, c.heldDesc, c.abandonedDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *setsCollector) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, t prometheus.ValueType, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, float64(v), labels...)
	}
	send(c.coalescedDesc, prometheus.CounterValue, c.counts.coalesced.Load())
	send(c.heldDesc, prometheus.GaugeValue, c.reserved.Load())
	send(c.abandonedDesc, prometheus.CounterValue, c.counts.tooLarge.Load(), "too_large")
	send(c.abandonedDesc, prometheus.CounterValue, c.counts.noMemory.Load(), "no_room")
}
