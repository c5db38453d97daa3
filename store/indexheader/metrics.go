package indexheader

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"larder/internal/telemetry"
)

type metrics struct {
	builds, buildFailures, localFailures prometheus.Counter
	// the same as buildFailures, under Thanos's name
	loadFailures prometheus.Counter
	rebuilds     *prometheus.CounterVec
	buildSeconds prometheus.Histogram
	corruptions  telemetry.Corruptions

	// Thanos's names. Its downloads are builds here, its lazy loads are openings that a request had
	// to wait for.
	lazyLoads, lazyLoadFailures, lazyUnloads, lazyUnloadFailures prometheus.Counter
	lazyLoadSeconds, downloadSeconds, loadSeconds                prometheus.Histogram
	// the same as downloadSeconds
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
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 256, NativeHistogramMinResetDuration: time.Hour,
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
		"larder_header_building", "Builds of index headers that run.",
		locked(func() float64 { return float64(m.builds.running) }),
	)
	gauge(
		"larder_header_build_queue",
		"Blocks whose index header waits to be built in the background.",
		locked(func() float64 { return float64(m.builds.queue.Len()) }),
	)
	gauge(
		"larder_header_block_cache_bytes",
		"Verified header blocks that are kept in memory.",
		func() float64 {
			if m.look.cache == nil {
				return 0
			}
			return float64(m.look.cache.bytes())
		},
	)
	total(
		"larder_header_block_reads_total",
		"Header blocks read from the local disk, or from memory in diskless mode.",
		m.look.reads.Load,
	)
	total(
		"larder_header_block_read_bytes_total", "Bytes of the header blocks that were read.",
		m.look.bytesRead.Load,
	)
	total(
		"larder_header_block_cache_hits_total", "Header blocks found in memory, verified.",
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
			"Failures of the local disk to take or to give back an index header, which is in memory instead.",
		),
		rebuilds: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_header_rebuilds_total",
			Help: "Index header files that were dropped to be built again: damaged, or stale (of another format or index).",
		}, []string{"reason"}),
		buildSeconds: seconds(
			"larder_header_build_duration_seconds",
			"How long builds of an index header took, without their wait for a place.", 0.01, 0.02,
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
			"How long it took to build the index header of a block: all that loading a block takes here.",
			0.1, 0.2, 0.5, 1, 2, 5, 15, 30, 60, 90, 120, 300,
		),
		loadSeconds: seconds(
			thanosPrefix+"load_duration_seconds",
			"Duration of the index-header loading in seconds.", 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1,
			2, 5, 15, 30, 60, 90, 120, 300,
		),
	}
}
