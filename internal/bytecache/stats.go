package bytecache

import "github.com/prometheus/client_golang/prometheus"

// Stats are the counts of a cache since it was made.
type Stats struct {
	Requests, Hits, HitBytes int64
	// Added counts values that were accepted, if only briefly; Departed counts those that have left
	// since.
	Added, Departed int64
	// Evictions counts values that the policy removed in favour of others.
	Evictions int64
	// Values that were not kept. TooLarge: larger than the limit of a value, never accepted.
	// Crowded: too much was pending. Refused: not requested again in time, or refused by the
	// admission policy.
	TooLarge, Crowded, Refused int64
	// Items and Bytes count the values held, pending ones and bookkeeping included.
	Items, Bytes int64
	// ValueBytes is Bytes without bookkeeping: the heap that the values use.
	ValueBytes int64
	// PendingBytes is the part of Bytes that is set and not yet applied.
	PendingBytes int64
	MaxBytes     int64
}

// Stats returns a snapshot; its counts are not from one instant.
func (m *Values[V]) Stats() Stats {
	departed := m.departed.Load() // read first, so that it never exceeds Added
	st := Stats{
		Added:        m.added.Load(),
		Departed:     departed,
		Evictions:    m.evictions.Load(),
		TooLarge:     m.tooLarge.Load(),
		Crowded:      m.crowded.Load(),
		Refused:      m.refused.Load(),
		Bytes:        m.bytes.Load(),
		PendingBytes: m.pendingBytes.Load(),
		MaxBytes:     m.maxBytes,
	}
	st.Items = st.Added - st.Departed
	st.ValueBytes = max(0, st.Bytes-st.Items*entryOverhead)
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		st.Requests += s.requests
		st.Hits += s.hits
		st.HitBytes += s.hitBytes
		s.mu.Unlock()
	}
	return st
}

// collector exports Stats as metrics, so that Get updates only one set of counters.
type collector struct {
	source     interface{ Stats() Stats }
	registerer prometheus.Registerer
	remote     bool // the contents of the tier are not known

	requests, hits, hitBytes, evictions, rejected, items, bytes, maxBytes *prometheus.Desc
}

// Values of the label `tier`.
const (
	TierMemory    = "memory"
	TierDisk      = "disk"
	TierMemcached = "memcached"
)

// Register registers the metrics of a tier of a cache, which is not in this package. unregister
// frees their names.
func Register(
	reg prometheus.Registerer, name, tier string, source interface{ Stats() Stats },
) (unregister func()) {
	return register(reg, name, tier, source).unregister
}

// register registers the metrics of a tier of a cache. Without a registerer it returns nil, which
// can be unregistered.
func register(
	reg prometheus.Registerer, name, tier string, source interface{ Stats() Stats },
) *collector {
	if reg == nil {
		return nil
	}
	desc := func(metric, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("larder_cache_"+metric, help, labels,
			prometheus.Labels{"cache": name, "tier": tier})
	}
	c := &collector{
		source:     source,
		registerer: reg,
		remote:     tier == TierMemcached,
		requests:   desc("requests_total", "Look-ups in the cache."),
		hits:       desc("hits_total", "Look-ups that found a value."),
		hitBytes:   desc("hit_bytes_total", "Bytes of values found."),
		evictions:  desc("evictions_total", "Values evicted in favour of others."),
		rejected: desc(
			"rejected_total",
			"Values that were not kept, by reason.",
			"reason",
		),
		items:    desc("items", "Values held."),
		bytes:    desc("bytes", "Bytes in use, bookkeeping included."),
		maxBytes: desc("max_bytes", "Maximum size of the cache in bytes."),
	}
	reg.MustRegister(c)
	return c
}

func (c *collector) unregister() {
	if c != nil {
		c.registerer.Unregister(c)
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.requests, c.hits, c.hitBytes} {
		ch <- d
	}
	if c.remote {
		return
	}
	for _, d := range []*prometheus.Desc{c.evictions, c.rejected, c.items, c.bytes, c.maxBytes} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	st := c.source.Stats()
	send := func(d *prometheus.Desc, t prometheus.ValueType, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, float64(v), labels...)
	}
	send(c.requests, prometheus.CounterValue, st.Requests)
	send(c.hits, prometheus.CounterValue, st.Hits)
	send(c.hitBytes, prometheus.CounterValue, st.HitBytes)
	if c.remote {
		return
	}
	send(c.evictions, prometheus.CounterValue, st.Evictions)
	send(c.rejected, prometheus.CounterValue, st.TooLarge, "too_large")
	send(c.rejected, prometheus.CounterValue, st.Crowded, "crowded")
	send(c.rejected, prometheus.CounterValue, st.Refused, "policy")
	send(c.items, prometheus.GaugeValue, st.Items)
	send(c.bytes, prometheus.GaugeValue, st.Bytes)
	send(c.maxBytes, prometheus.GaugeValue, st.MaxBytes)
}
