package indexcache

import "github.com/prometheus/client_golang/prometheus"

// pageItem is the item_type of what the cache holds. Who asks for a page is known, and counted where requests are (package store); a page
// itself may hold postings and series entries at once.
const pageItem = "Pages"

// collector exports what the cache holds under the names of Thanos's index cache.
type collector struct {
	cache    *Cache
	pageSize int64

	items, itemBytes, totalBytes, added, evicted, overflowed, maxBytes, maxItemBytes *prometheus.Desc
}

func newCollector(c *Cache) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("thanos_store_index_cache_"+name, help, labels, nil)
	}
	return &collector{
		cache:        c,
		pageSize:     int64(c.PageSize()),
		items:        desc("items", "Index pages held.", "item_type"),
		itemBytes:    desc("items_size_bytes", "Bytes of the index pages held, without bookkeeping.", "item_type"),
		totalBytes:   desc("total_size_bytes", "Bytes of the index pages held, bookkeeping included.", "item_type"),
		added:        desc("items_added_total", "Index pages taken in.", "item_type"),
		evicted:      desc("items_evicted_total", "Index pages dropped to make room for others.", "item_type"),
		overflowed:   desc("items_overflowed_total", "Index pages that were too large for the cache.", "item_type"),
		maxBytes:     desc("max_size_bytes", "Bytes that the cache may hold."),
		maxItemBytes: desc("max_item_size_bytes", "Bytes of a whole index page, the largest that there is."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.items, c.itemBytes, c.totalBytes, c.added, c.evicted, c.overflowed, c.maxBytes, c.maxItemBytes} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	st := c.cache.Stats()
	send := func(d *prometheus.Desc, t prometheus.ValueType, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, float64(v), labels...)
	}
	send(c.items, prometheus.GaugeValue, st.Items, pageItem)
	send(c.itemBytes, prometheus.GaugeValue, st.ValueBytes, pageItem)
	send(c.totalBytes, prometheus.GaugeValue, st.Bytes, pageItem)
	send(c.added, prometheus.CounterValue, st.Added, pageItem)
	send(c.evicted, prometheus.CounterValue, st.Evictions, pageItem)
	send(c.overflowed, prometheus.CounterValue, st.TooLarge, pageItem)
	send(c.maxBytes, prometheus.GaugeValue, st.MaxBytes)
	send(c.maxItemBytes, prometheus.GaugeValue, c.pageSize)
}
