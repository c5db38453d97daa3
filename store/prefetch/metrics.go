package prefetch

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// The values of the label result of larder_index_prefetch_blocks_total.
const (
	resultDone   = "done"
	resultFailed = "failed"
)

// The values of the label reason of larder_index_prefetch_skipped_blocks.
const (
	skippedBudget  = "budget"
	skippedEvicted = "evicted"
)

type metrics struct {
	done, failed    prometheus.Counter // blocks
	budget, evicted prometheus.Gauge   // skipped blocks
	// Reads of the bucket, their bytes, and reads that became demand.
	reads, bytes, demand prometheus.Counter
	read, present        prometheus.Counter // pages
}

func newMetrics(p *Prefetcher, reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	const prefix = "larder_index_prefetch_"
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help})
	}
	gauge := func(name, help string, value func() float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + name, Help: help}, func() float64 {
			p.mu.Lock()
			defer p.mu.Unlock()
			return value()
		})
	}
	gauge("pending_blocks",
		"Blocks whose index is to be read into the disk cache. NaN before the blocks are known.",
		p.pendingLocked)
	gauge("paused",
		"1 while nothing is read because the disk cache does not write, 0 otherwise.",
		func() float64 {
			if p.paused {
				return 1
			}
			return 0
		})
	blocks := f.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "blocks_total",
		Help: "Blocks whose index was read into the disk cache or was there (done), or could " +
			"not be read (failed).",
	}, []string{"result"})
	skipped := f.NewGaugeVec(prometheus.GaugeOpts{
		Name: prefix + "skipped_blocks",
		Help: "Blocks whose index is not to be read: it does not fit in the limit (budget), or " +
			"was evicted and not queried since (evicted).",
	}, []string{"reason"})
	pages := f.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "pages_total",
		Help: "Index pages that were read into the disk cache (read), or were there (present).",
	}, []string{"result"})
	return &metrics{
		done:    blocks.WithLabelValues(resultDone),
		failed:  blocks.WithLabelValues(resultFailed),
		budget:  skipped.WithLabelValues(skippedBudget),
		evicted: skipped.WithLabelValues(skippedEvicted),
		reads:   counter("reads_total", "Reads of the bucket by prefetch that were complete."),
		bytes:   counter("read_bytes_total", "Bytes of these reads of the bucket."),
		demand: counter("demand_reads_total",
			"Reads for the disk cache that were not done in the time that the least rate permits, "+
				"and then took turns with those of requests."),
		read: pages.WithLabelValues("read"), present: pages.WithLabelValues("present"),
	}
}
