package diskcache

import "github.com/prometheus/client_golang/prometheus"

// metrics are the metrics of a Disk. Those of its caches are larder_cache_*{tier="disk"}, see
// bytecache.Register.
type metrics struct {
	offs                                  *prometheus.CounterVec
	reads, readBytes, readErrors, corrupt prometheus.Counter
	timeouts, bypassed, written, moved    prometheus.Counter
	readSeconds                           prometheus.Histogram
	registerer                            prometheus.Registerer
	collectors                            []prometheus.Collector
}

func newMetrics(d *Disk) *metrics {
	m := &metrics{registerer: d.o.Registerer}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(
			prometheus.CounterOpts{Name: "larder_disk_cache_" + name, Help: help},
		)
		m.collectors = append(m.collectors, c)
		return c
	}
	gauge := func(name, help string, f func() float64) {
		m.collectors = append(m.collectors, prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Name: "larder_disk_cache_" + name, Help: help}, f))
	}
	m.reads = counter("reads_total", "Reads of the disk that returned in time.")
	m.readBytes = counter("read_bytes_total", "Bytes of the reads that returned in time.")
	m.readErrors = counter("read_errors_total", "Reads that the disk failed.")
	m.timeouts = counter(
		"timeouts_total", "Look-ups that gave up on the disk and asked the next tier.",
	)
	m.corrupt = counter("corrupt_values_total", "Values whose bytes did not verify.")
	m.bypassed = counter("bypassed_pages_total",
		"Pages that were on the disk and left to the bucket, which was expected to be faster.")
	m.written = counter("written_bytes_total", "Bytes written to the disk.")
	m.moved = counter("moved_bytes_total",
		"Bytes of values that were written again before their segment was removed.")
	m.offs = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "larder_disk_cache_off_total",
		Help: "Times that the disk was turned off, or that its files were gone, by reason.",
	}, []string{"reason"})
	m.readSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "larder_disk_cache_read_seconds",
		Help:    "Duration of the reads that returned in time.",
		Buckets: prometheus.ExponentialBuckets(50e-6, 4, 8),
	})
	m.collectors = append(m.collectors, m.offs, m.readSeconds)
	gauge("readable", "1 while the disk is read, 0 while it is off.", func() float64 {
		return one(d.readable())
	})
	gauge("writable", "1 while the disk is written to, 0 while it is off.", func() float64 {
		return one(d.writable())
	})
	gauge("stuck_reads", "Reads that have not returned and that no look-up waits for.",
		func() float64 { return float64(d.stuck.Load()) })
	if m.registerer != nil {
		m.registerer.MustRegister(m.collectors...)
	}
	return m
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// unregister frees the names for another Disk.
func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.collectors {
		m.registerer.Unregister(c)
	}
}
