package memcached

import "github.com/prometheus/client_golang/prometheus"

// collector exports the counters of a client and the state of its servers as metrics.
type collector struct {
	client *Client

	requests, hits, hitBytes, dropped, state, opened *prometheus.Desc
	thanosRequests, thanosHits                       *prometheus.Desc // counts keys, same as Thanos
}

func newCollector(c *Client) *collector {
	desc := func(metric, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("larder_memcached_"+metric, help, labels,
			prometheus.Labels{"name": c.o.Name})
	}
	thanos := func(metric, help string) *prometheus.Desc {
		return prometheus.NewDesc("thanos_cache_memcached_"+metric, help, nil,
			prometheus.Labels{"name": c.o.Name})
	}
	return &collector{
		client:   c,
		requests: desc("requests_total", "Values requested."),
		hits: desc(
			"hits_total",
			"Values found, by source: on a server, or in the queue of pending writes.",
			"source"),
		hitBytes: desc("hit_bytes_total", "Bytes of values found."),
		dropped: desc(
			"dropped_writes_total", "Values and deletions that were not written, by reason.",
			"reason",
		),
		state: desc(
			"breaker_state",
			"State of a server's circuit breaker: 0 closed, 1 half-open, 2 open.",
			"direction", "server",
		),
		opened: desc(
			"breaker_opened_total",
			"Times a circuit breaker opened, failed probes included.", "direction",
			"server",
		),

		thanosRequests: thanos("requests_total",
			"Values requested, same as larder_memcached_requests_total."),
		thanosHits: thanos("hits_total", "Values found, same as larder_memcached_hits_total."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	all := []*prometheus.Desc{c.requests, c.hits, c.hitBytes, c.dropped, c.state, c.opened,
		c.thanosRequests, c.thanosHits}
	for _, d := range all {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, t prometheus.ValueType, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, float64(v), labels...)
	}
	st := c.client.Stats()
	send(c.requests, prometheus.CounterValue, st.Requests)
	send(c.hits, prometheus.CounterValue, max(st.Hits-st.PendingHits, 0), "server")
	send(c.hits, prometheus.CounterValue, st.PendingHits, "pending")
	send(c.thanosRequests, prometheus.CounterValue, st.Requests)
	send(c.thanosHits, prometheus.CounterValue, st.Hits)
	send(c.hitBytes, prometheus.CounterValue, st.HitBytes)
	send(c.dropped, prometheus.CounterValue, st.Dropped.Full, "full")
	send(c.dropped, prometheus.CounterValue, st.Dropped.TooLarge, "too_large")
	send(c.dropped, prometheus.CounterValue, st.Dropped.BreakerOpen, "breaker_open")
	send(c.dropped, prometheus.CounterValue, st.Dropped.NoServer, "no_server")
	send(c.dropped, prometheus.CounterValue, st.Dropped.Failed, "failed")
	for _, s := range c.client.ring.Load().servers {
		state, opened := s.readBreaker.now()
		send(c.state, prometheus.GaugeValue, int64(state), "read", s.addr.addr)
		send(c.opened, prometheus.CounterValue, opened, "read", s.addr.addr)
		state, opened = s.writeBreaker.now()
		send(c.state, prometheus.GaugeValue, int64(state), "write", s.addr.addr)
		send(c.opened, prometheus.CounterValue, opened, "write", s.addr.addr)
	}
}

// skip counts an operation that was not tried.
func (c *Client) skip(operation, reason string) {
	if operation == opGetMulti {
		c.counters.skipped.Add(1)
	}
	c.metrics.skipped.WithLabelValues(operation, reason).Inc()
}
