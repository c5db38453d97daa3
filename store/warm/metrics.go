package warm

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"larder/internal/telemetry"
)

type metrics struct {
	running                           *prometheus.GaugeVec
	replayed, skipped, bytes, seconds *prometheus.CounterVec
	failures                          *prometheus.CounterVec
	snapshotTime, snapshotBytes       prometheus.Gauge
	corruptions                       telemetry.Corruptions
}

func newMetrics(r *Recorder, reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		corruptions: telemetry.NewCorruptions(reg),
		running: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "larder_warm_running", Help: "Replays of matcher sets that run now.",
		}, []string{"after"}),
		replayed: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_warm_sets_replayed_total", Help: "Matcher sets that were replayed for a block.",
		}, []string{"after"}),
		skipped: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_warm_sets_skipped_total",
			Help: "Matcher sets that were not: the block is gone, they failed, or the time or the bytes of the replay were used up (bound).",
		}, []string{"after", "reason"}),
		bytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_warm_fetched_bytes_total", Help: "Bytes of index pages that replays read from the bucket.",
		}, []string{"after"}),
		seconds: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_warm_seconds_total", Help: "Seconds that replays ran.",
		}, []string{"after"}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_warm_snapshot_failures_total", Help: "Snapshots that could not be read or written.",
		}, []string{"operation"}),
		snapshotTime: f.NewGauge(prometheus.GaugeOpts{
			Name: "larder_warm_snapshot_timestamp_seconds", Help: "When this process last wrote a snapshot, 0 if it has not.",
		}),
		snapshotBytes: f.NewGauge(prometheus.GaugeOpts{
			Name: "larder_warm_snapshot_bytes", Help: "Size of the snapshot that this process wrote last.",
		}),
	}
	for _, after := range []string{afterRestart, afterCompaction} {
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
		"larder_warm_recorded_blocks", "Blocks of which it is recorded what was asked.",
		func(s recorded) float64 { return float64(s.blocks) },
	)
	gauge(
		"larder_warm_recorded_sets", "Matcher sets that are recorded.",
		func(s recorded) float64 { return float64(s.sets) },
	)
	gauge(
		"larder_warm_recorded_bytes",
		"Bytes of these sets: their texts, and of which blocks each was asked.",
		func(s recorded) float64 { return float64(s.bytes) },
	)
	counter := func(name, help string, v func(recorded) float64) {
		f.NewCounterFunc(
			prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return v(r.stats()) },
		)
	}
	counter(
		"larder_warm_sets_too_long_total",
		"Requests whose matchers were too long to be recorded, per set of external labels.",
		func(s recorded) float64 { return float64(s.tooLong) },
	)
	counter(
		"larder_warm_sets_forgotten_total", "Recorded sets that made room for others.",
		func(s recorded) float64 { return float64(s.forgotten) },
	)
	return m
}
