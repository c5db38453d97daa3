package warm

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"larder/internal/telemetry"
)

type metrics struct {
	running                           *prometheus.GaugeVec
	replayed, skipped, bytes, seconds *prometheus.CounterVec
	failures, pageReads               *prometheus.CounterVec
	snapshotTime, snapshotBytes       prometheus.Gauge
	corruptions                       telemetry.Corruptions
}

func newMetrics(r *Recorder, reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		corruptions: telemetry.NewCorruptions(reg),
		running: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "larder_warm_running", Help: "Number of running replays.",
		}, []string{"after"}),
		replayed: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_warm_sets_replayed_total",
			Help: "Total number of matcher sets replayed for a block.",
		}, []string{"after"}),
		skipped: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_warm_sets_skipped_total",
			Help: "Total number of matcher sets not replayed, by reason: gone (the block left), failed, bound (the replay reached its time or byte limit).",
		}, []string{"after", "reason"}),
		bytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_warm_fetched_bytes_total",
			Help: "Total bytes that replays, and reads of hot pages, read from the bucket.",
		}, []string{"after"}),
		seconds: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_warm_seconds_total", Help: "Total duration of replays in seconds.",
		}, []string{"after"}),
		pageReads: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_warm_hot_page_reads_total",
			Help: "Total number of reads of pages that were in the memory of the former owner of " +
				"a block, or of this process before a restart, of up to 256 KiB each, by " +
				"outcome: read, skipped (failed, or the time or byte limit was reached).",
		}, []string{"outcome"}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_warm_snapshot_failures_total",
			Help: "Total number of failed reads and writes of the snapshot.",
		}, []string{"operation"}),
		snapshotTime: f.NewGauge(prometheus.GaugeOpts{
			Name: "larder_warm_snapshot_timestamp_seconds", Help: "Time at which this process last wrote a snapshot, 0 if never.",
		}),
		snapshotBytes: f.NewGauge(prometheus.GaugeOpts{
			Name: "larder_warm_snapshot_bytes",
			Help: "Size of the last snapshot that this process wrote.",
		}),
	}
	for _, outcome := range []string{pageRead, pageSkipped} {
		m.pageReads.WithLabelValues(outcome)
	}
	for _, after := range []string{afterRestart, afterCompaction, afterHandOver} {
		m.running.WithLabelValues(after)
		m.replayed.WithLabelValues(after)
		m.bytes.WithLabelValues(after)
		m.seconds.WithLabelValues(after)
		for _, reason := range []string{skippedGone, skippedFailed, skippedBound} {
			m.skipped.WithLabelValues(after, reason)
		}
	}
	for _, operation := range []string{"read", "write"} {
		m.failures.WithLabelValues(operation)
	}
	gauge := func(name, help string, v func(recorded) float64) {
		f.NewGaugeFunc(
			prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return v(r.stats()) },
		)
	}
	gauge(
		"larder_warm_recorded_blocks", "Number of blocks with recorded matcher sets.",
		func(s recorded) float64 { return float64(s.blocks) },
	)
	gauge(
		"larder_warm_recorded_sets", "Number of recorded matcher sets.",
		func(s recorded) float64 { return float64(s.sets) },
	)
	gauge(
		"larder_warm_recorded_bytes",
		"Memory of the recorded matcher sets in bytes: their texts and their marks of blocks.",
		func(s recorded) float64 { return float64(s.bytes) },
	)
	counter := func(name, help string, v func(recorded) float64) {
		f.NewCounterFunc(
			prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return v(r.stats()) },
		)
	}
	counter(
		"larder_warm_sets_too_long_total",
		"Total number of matcher sets of requests that were too long to be recorded.",
		func(s recorded) float64 { return float64(s.tooLong) },
	)
	counter(
		"larder_warm_sets_forgotten_total",
		"Total number of recorded matcher sets evicted for others.",
		func(s recorded) float64 { return float64(s.forgotten) },
	)
	return m
}
