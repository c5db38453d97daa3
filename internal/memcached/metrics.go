package memcached

import (
	"fmt"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/telemetry"
)

// Operations and reasons: Thanos's names, and larder's own.
const (
	opGetMulti = "getmulti"
	opSet      = "set"
	opDelete   = "delete"

	skippedTooLarge = "max-item-size"
	skippedFull     = "async-buffer-full"
	skippedBreaker  = "circuit-breaker-open"
	skippedNoServer = "no-server"
	skippedTurn     = "no-turn"
)

// metrics of a client. Those that dashboards of Thanos read have its names and buckets.
type metrics struct {
	registerer prometheus.Registerer
	all        []prometheus.Collector

	operations   map[string]prometheus.Counter
	duration     map[string]prometheus.Observer
	size         map[string]prometheus.Observer
	failures     *prometheus.CounterVec // operation, reason
	skipped      *prometheus.CounterVec // operation, reason
	results      *prometheus.GaugeVec   // addr
	corrupt      *prometheus.CounterVec // fault
	corruptions  telemetry.Corruptions  // shared by all clients and the bucket
	gateWait     prometheus.Histogram
	gateTotal    prometheus.Counter
	gateInFlight prometheus.Gauge
}

func newMetrics(c *Client) (*metrics, error) {
	o := &c.o
	name := prometheus.Labels{"name": o.Name}
	m := &metrics{registerer: o.Registerer}
	counter := func(metric, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(
			prometheus.CounterOpts{Name: metric, Help: help, ConstLabels: name}, labels)
		m.all = append(m.all, v)
		return v
	}
	histogram := func(
		metric, help string, buckets []float64, labels ...string,
	) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(
			prometheus.HistogramOpts{Name: metric, Help: help, ConstLabels: name, Buckets: buckets},
			labels)
		m.all = append(m.all, v)
		return v
	}
	gauge := func(metric, help string, f func() float64) {
		m.all = append(
			m.all, prometheus.NewGaugeFunc(
				prometheus.GaugeOpts{Name: metric, Help: help, ConstLabels: name}, f))
	}
	count := func(metric, help string, f func() int64) {
		m.all = append(
			m.all, prometheus.NewCounterFunc(
				prometheus.CounterOpts{Name: metric, Help: help, ConstLabels: name},
				func() float64 { return float64(f()) }))
	}

	operations := counter("thanos_memcached_operations_total", "Operations against memcached.",
		"operation")
	duration := histogram("thanos_memcached_operation_duration_seconds",
		"Duration of successful operations against memcached.",
		[]float64{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 3, 6, 10}, "operation")
	size := histogram("thanos_memcached_operation_data_size_bytes",
		"Bytes of values stored, or found, by one operation against memcached.",
		[]float64{32, 256, 512, 1 << 10, 32 << 10, 256 << 10, 512 << 10, 1 << 20, 32 << 20,
			256 << 20, 512 << 20}, "operation")
	m.failures = counter("thanos_memcached_operation_failures_total",
		"Operations against memcached that failed.", "operation", "reason")
	m.skipped = counter("thanos_memcached_operation_skipped_total",
		"Operations against memcached that were not tried.", "operation", "reason")
	m.operations, m.duration, m.size = map[string]prometheus.Counter{},
		map[string]prometheus.Observer{}, map[string]prometheus.Observer{}
	reasons := []string{kindTimeout, kindKey, kindServer, kindNetwork, kindMalformed, kindOther}
	for _, op := range []string{opGetMulti, opSet, opDelete} {
		m.operations[op] = operations.WithLabelValues(op)
		m.duration[op] = duration.WithLabelValues(op)
		if op == opDelete {
			continue // rare: its failures are counted from the first one on
		}
		for _, reason := range reasons {
			m.failures.WithLabelValues(op, reason)
		}
		m.skipped.WithLabelValues(op, skippedBreaker)
		m.skipped.WithLabelValues(op, skippedNoServer)
	}
	m.failures.WithLabelValues(opGetMulti, kindCorrupt)
	m.failures.WithLabelValues(opGetMulti, kindTooLarge)
	m.skipped.WithLabelValues(opGetMulti, skippedTurn)
	m.skipped.WithLabelValues(opSet, skippedTooLarge)
	m.skipped.WithLabelValues(opSet, skippedFull)
	for _, op := range []string{opGetMulti, opSet} {
		m.size[op] = size.WithLabelValues(op)
	}

	m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "thanos_memcached_client_info",
		Help: "Always 1; its labels are the client's configuration.",
		ConstLabels: prometheus.Labels{
			"name":                         o.Name,
			"timeout":                      o.Timeout.String(),
			"max_idle_connections":         strconv.Itoa(o.MaxIdleConnections),
			"max_async_concurrency":        strconv.Itoa(o.MaxAsyncConcurrency),
			"max_async_buffer_size":        strconv.Itoa(o.MaxAsyncBufferSize),
			"max_item_size":                strconv.FormatInt(o.MaxItemSize, 10),
			"max_get_multi_concurrency":    strconv.Itoa(o.MaxGetMultiConcurrency),
			"max_get_multi_batch_size":     strconv.Itoa(o.MaxGetMultiBatchSize),
			"dns_provider_update_interval": o.DNSInterval.String(),
		},
	}, func() float64 { return 1 }))
	count("thanos_memcached_dns_lookups_total", "DNS look-ups of memcached servers.",
		c.discovery.lookups.Load)
	count("thanos_memcached_dns_failures_total", "DNS look-ups of memcached servers that failed.",
		c.discovery.failures.Load)
	m.results = prometheus.NewGaugeVec(
		prometheus.GaugeOpts{Name: "thanos_memcached_dns_provider_results",
			Help: "Servers found for each configured address.", ConstLabels: name},
		[]string{"addr"})
	for _, a := range c.discovery.addresses {
		if a.scheme == "" {
			m.results.WithLabelValues(a.text).Set(1)
		}
	}
	m.all = append(m.all, m.results)

	gauge("thanos_memcached_getmulti_gate_gets_max",
		"Maximum number of batches that run in parallel.",
		func() float64 { return float64(cap(c.turns)) })
	m.gateInFlight = prometheus.NewGauge(
		prometheus.GaugeOpts{Name: "thanos_memcached_getmulti_gate_gets_in_flight",
			Help: "Batches running now.", ConstLabels: name})
	m.gateTotal = prometheus.NewCounter(
		prometheus.CounterOpts{Name: "thanos_memcached_getmulti_gate_gets_total",
			Help: "Batches that arrived at the gate.", ConstLabels: name})
	m.gateWait = prometheus.NewHistogram(
		prometheus.HistogramOpts{Name: "thanos_memcached_getmulti_gate_gets_duration_seconds",
			Help:        "Time that batches waited at the gate.",
			ConstLabels: name, Buckets: []float64{0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90,
				120,
				240, 360, 720}})
	m.all = append(m.all, m.gateInFlight, m.gateTotal, m.gateWait)

	m.corrupt = counter("larder_memcached_corrupt_values_total",
		"Values received that failed verification and count as misses, by fault.", "fault")
	for _, fault := range []string{faultShort, faultVersion, faultChecksum, faultIdentity} {
		m.corrupt.WithLabelValues(fault)
	}
	m.corruptions = telemetry.NewCorruptions(o.Registerer)
	gauge("larder_memcached_read_deadline_seconds", "Current time limit of a read.",
		func() float64 { return c.readDeadline().Seconds() })
	gauge("larder_memcached_pending_writes", "Values and deletions waiting to be written.",
		func() float64 { n, _ := c.queue.waiting(); return float64(n) })
	gauge("larder_memcached_pending_write_bytes", "Bytes of values waiting to be written.",
		func() float64 { _, b := c.queue.waiting(); return float64(b) })
	m.all = append(m.all, newCollector(c))
	if m.registerer == nil {
		return m, nil
	}
	for i, col := range m.all {
		if err := m.registerer.Register(col); err != nil {
			m.all = m.all[:i]
			m.unregister()
			return nil, fmt.Errorf(
				"memcached: client %q has the name of another client: names must differ: %w",
				o.Name,
				err)
		}
	}
	return m, nil
}

func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, col := range m.all {
		m.registerer.Unregister(col)
	}
}
