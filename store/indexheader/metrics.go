package indexheader

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"larder/internal/telemetry"
)

type metrics struct {
	builds, buildFailures, localFailures prometheus.Counter
	// loadFailures is buildFailures under Thanos's name.
	loadFailures prometheus.Counter
	rebuilds     *prometheus.CounterVec
	buildSeconds prometheus.Histogram
	corruptions  telemetry.Corruptions

	// The metrics below have Thanos's names. Its downloads are builds here, and its lazy loads are
	// openings that a request waited for.
	lazyLoads, lazyLoadFailures, lazyUnloads, lazyUnloadFailures prometheus.Counter
	lazyLoadSeconds, downloadSeconds, loadSeconds                prometheus.Histogram
	// blockLoadSeconds is downloadSeconds under another name of Thanos.
	blockLoadSeconds prometheus.Histogram
}

const thanosPrefix = "thanos_bucket_store_indexheader_"

func newMetrics(m *Manager, reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	seconds := func(name, help string, buckets ...float64) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 256,
			NativeHistogramMinResetDuration: time.Hour,
		})
	}
	gauge := func(name, help string, value func() float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	total := func(name, help string, value func() int64) {
		f.NewCounterFunc(
			prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return float64(value()) },
		)
	}
	locked := func(value func() float64) func() float64 {
		return func() float64 {
			m.mu.Lock()
			defer m.mu.Unlock()
			return value()
		}
	}
	gauge(
		"larder_header_open", "Index headers that are open.",
		locked(func() float64 { return float64(m.openCount) }),
	)
	gauge(
		"larder_header_open_bytes", "Heap of the open index headers.",
		locked(func() float64 { return float64(m.openBytes) }),
	)
	gauge(
		"larder_header_building", "Running builds of index headers.",
		locked(func() float64 { return float64(m.builds.running) }),
	)
	gauge(
		"larder_header_build_queue",
		"Blocks whose index header is queued for a background build.",
		locked(func() float64 { return float64(m.builds.queue.Len()) }),
	)
	gauge(
		"larder_header_block_cache_bytes",
		"Bytes of cached verified header blocks.",
		func() float64 {
			if m.look.cache == nil {
				return 0
			}
			return float64(m.look.cache.bytes())
		},
	)
	total(
		"larder_header_block_reads_total",
		"Header blocks read from the local disk, or from memory without a data directory.",
		m.look.reads.Load,
	)
	total(
		"larder_header_block_read_bytes_total", "Bytes of header blocks read from the local disk, or from memory without a data directory.",
		m.look.bytesRead.Load,
	)
	total(
		"larder_header_block_cache_hits_total",
		"Header blocks found in the cache of verified blocks.",
		m.look.hits.Load,
	)
	return &metrics{
		corruptions: telemetry.NewCorruptions(reg),
		builds: counter(
			"larder_header_builds_total", "Builds of an index header that were started.",
		),
		buildFailures: counter(
			"larder_header_build_failures_total", "Builds of an index header that failed.",
		),
		loadFailures: counter(
			"thanos_bucket_store_block_load_failures_total",
			"Total number of failed attempts to build the index header of a block.",
		),
		localFailures: counter(
			"larder_header_local_failures_total",
			"Failures to write an index header to the local disk or to read it back. The header is kept in memory instead.",
		),
		rebuilds: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_header_rebuilds_total",
			Help: "Index header files that were dropped and built again, by reason: damaged, or stale (of another format or index).",
		}, []string{"reason"}),
		buildSeconds: seconds(
			"larder_header_build_duration_seconds",
			"Duration of builds of an index header, without the wait in the build queue.", 0.01, 0.02,
			0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 30, 60, 120, 300,
		),

		lazyLoads: counter(
			thanosPrefix+"lazy_load_total", "Total number of index-header lazy load operations.",
		),
		lazyLoadFailures: counter(
			thanosPrefix+"lazy_load_failed_total",
			"Total number of failed index-header lazy load operations.",
		),
		lazyUnloads: counter(
			thanosPrefix+"lazy_unload_total",
			"Total number of index-header lazy unload operations.",
		),
		lazyUnloadFailures: counter(
			thanosPrefix+"lazy_unload_failed_total",
			"Total number of failed index-header lazy unload operations.",
		),
		lazyLoadSeconds: seconds(
			thanosPrefix+"lazy_load_duration_seconds",
			"Duration of the index-header lazy loading in seconds.", 0.01, 0.02, 0.05, 0.1, 0.2,
			0.5, 1, 2, 5, 15, 30, 60, 90, 120, 300,
		),
		downloadSeconds: seconds(
			thanosPrefix+"download_duration_seconds",
			"Duration of the index-header download from objstore in seconds.", 0.1, 0.2, 0.5, 1, 2,
			5, 15, 30, 60, 90, 120, 300,
		),
		blockLoadSeconds: seconds(
			"thanos_bucket_store_block_load_duration_seconds",
			"Duration of building the index header of a block, which is all that loading a block needs in larder.",
			0.1, 0.2, 0.5, 1, 2, 5, 15, 30, 60, 90, 120, 300,
		),
		loadSeconds: seconds(
			thanosPrefix+"load_duration_seconds",
			"Duration of the index-header loading in seconds.", 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1,
			2, 5, 15, 30, 60, 90, 120, 300,
		),
	}
}
