package catalog

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"larder/internal/telemetry"
)

// The states of a block, by the names that Thanos's dashboards use.
const (
	stateLoaded        = "loaded"
	stateNoMeta        = "no-meta-json"
	stateCorrupted     = "corrupted-meta-json"
	stateFailed        = "failed"
	stateTimeExcluded  = "time-excluded"
	stateLabelExcluded = "label-excluded"
	stateTooFresh      = "too-fresh"
	stateMarked        = "marked-for-deletion"
	stateDuplicate     = "duplicate"
	stateConverted     = "parquet-converted"
	stateShard         = "shard" // exported only with a Shard
)

// allStates also has two states that Thanos exports and that are always 0 here: no-compact marks do
// not matter to a store, and blocks converted to Parquet count as parquet-converted.
var allStates = [...]string{
	stateLoaded, stateNoMeta, stateCorrupted, stateFailed, stateTimeExcluded, stateLabelExcluded,
	stateTooFresh,
	stateMarked, stateDuplicate, stateConverted, "marked-for-no-compact", "parquet-migrated",
}

// The contradictions between a listing and the bucket.
const (
	contradictionShrunk   = "more_than_half_gone"
	contradictionUnlisted = "unlisted_with_meta_json"
	contradictionHeadless = "listed_without_meta_json"
)

// stateCounts counts blocks by state.
type stateCounts map[string]int

type metrics struct {
	syncs, syncFailures, baseSyncs, cacheBusts prometheus.Counter
	syncDuration                               prometheus.Histogram
	synced                                     *prometheus.GaugeVec

	metaReads, markReads        *prometheus.CounterVec
	measurements                *prometheus.CounterVec
	damagedCopies, diskFailures prometheus.Counter
	refreshes, tombstones       prometheus.Counter
	blocks, labelSets           prometheus.Gauge
	complete, lastComplete      prometheus.Gauge
	waitingSources, tombstoned  prometheus.Gauge
	formerRules                 prometheus.Gauge
	fromDisk, numbers           prometheus.Gauge
	documents                   prometheus.Gauge
	shrinkPending, unlisted     prometheus.Gauge
	contradictions              *prometheus.CounterVec
	parquetFailures             prometheus.Counter
	parquetFiles                prometheus.Gauge
	corruptions                 telemetry.Corruptions
}

func newMetrics(reg prometheus.Registerer, consistencyDelay float64) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		corruptions: telemetry.NewCorruptions(reg),

		syncs: counter(
			"thanos_blocks_meta_syncs_total", "Total number of started syncs.",
		),
		syncFailures: counter(
			"thanos_blocks_meta_sync_failures_total", "Total number of incomplete syncs.",
		),
		baseSyncs: counter(
			"thanos_blocks_meta_base_syncs_total",
			"Total number of listings of the bucket, by syncs and refreshes.",
		),
		cacheBusts: counter(
			"thanos_blocks_meta_base_cache_busts_total",
			"Total number of known meta.json files read again because the listing showed a change.",
		),
		syncDuration: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "thanos_blocks_meta_sync_duration_seconds",
			Help:    "Duration of a sync.",
			Buckets: []float64{0.01, 1, 10, 100, 300, 600, 1000},
		}),
		synced: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "thanos_blocks_meta_synced",
			Help: "Number of listed blocks in the last sync, by state.",
		}, []string{"state"}),

		metaReads: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_catalog_meta_reads_total",
			Help: "Total number of requests for a meta.json, by outcome.",
		}, []string{"outcome"}),
		markReads: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_catalog_deletion_mark_reads_total",
			Help: "Total number of requests for a deletion-mark.json, by outcome.",
		}, []string{"outcome"}),
		measurements: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_catalog_measurements_total",
			Help: "Total number of measurements of a block's files, by outcome: changed (the block has a new identity), confirmed, failed.",
		}, []string{"outcome"}),
		damagedCopies: counter(
			"larder_catalog_damaged_copies_total",
			"Total number of local files of the catalog that did not verify.",
		),
		diskFailures: counter(
			"larder_catalog_disk_failures_total",
			"Total number of local files of the catalog that could not be read, written or removed.",
		),
		refreshes: counter(
			"larder_catalog_refreshes_total",
			"Total number of refreshes because an object was missing.",
		),
		tombstones: counter(
			"larder_catalog_tombstones_total",
			"Total number of blocks with an object that was found missing.",
		),
		blocks: gauge("larder_catalog_blocks", "Number of blocks in the view."),
		labelSets: gauge(
			"larder_catalog_label_sets", "Number of distinct external label sets in the view.",
		),
		complete: gauge(
			"larder_catalog_complete", "1 if the last sync or refresh was complete, else 0.",
		),
		lastComplete: gauge(
			"larder_catalog_last_complete_timestamp_seconds",
			"Start time of the last complete sync or refresh.",
		),
		waitingSources: gauge(
			"larder_catalog_held_sources",
			"Number of blocks that stay although a larger block covers them, until that block has opened.",
		),
		formerRules: gauge(
			"larder_catalog_former_rules",
			"Number of former lists of hashmod rules whose blocks are still served.",
		),
		tombstoned: gauge(
			"larder_catalog_tombstoned_blocks",
			"Number of blocks with a missing object, until the next complete view.",
		),
		fromDisk: gauge(
			"larder_catalog_from_disk",
			"1 while the view has blocks that an earlier process saved, else 0.",
		),
		documents: gauge(
			"larder_catalog_document_bytes",
			"Bytes reserved for documents and listings of the bucket that are being read and decoded.",
		),
		numbers: gauge("larder_catalog_numbers_used", "Block numbers used, of 16777215."),

		shrinkPending: gauge(
			"larder_catalog_shrink_pending",
			"1 while the removal of more than half of the known blocks waits for a second listing, else 0.",
		),
		unlisted: gauge(
			"larder_catalog_unlisted_blocks",
			"Number of blocks that stay although the last listing lacks them, until they are known to be gone.",
		),
		contradictions: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_catalog_contradictions_total",
			Help: "Total number of syncs whose listing contradicted the known state of the bucket, by kind.",
		}, []string{"kind"}),

		parquetFailures: counter(
			"larder_catalog_parquet_failures_total",
			"Total number of syncs that could not read all of the Parquet bucket.",
		),
		parquetFiles: gauge(
			"larder_catalog_parquet_files", "Number of known meta.pb files in the Parquet bucket.",
		),
	}
	modified := f.NewGaugeVec(prometheus.GaugeOpts{
		Name: "thanos_blocks_meta_modified",
		Help: "Always 0, because a store does not change the meta.json files that it reads.",
	}, []string{"modified"})
	modified.WithLabelValues("replica-label-removed")
	gauge(
		"thanos_consistency_delay_seconds", "The configured consistency delay.",
	).Set(consistencyDelay)
	for _, o := range []readOutcome{readOK, readMissing, readBroken, readFailed} {
		m.metaReads.WithLabelValues(string(o))
		m.markReads.WithLabelValues(string(o))
	}
	for _, kind := range []string{contradictionShrunk, contradictionUnlisted,
		contradictionHeadless} {
		m.contradictions.WithLabelValues(kind)
	}
	for _, o := range []string{"changed", "confirmed", "failed"} {
		m.measurements.WithLabelValues(o)
	}
	m.setStates(nil)
	return m
}

// measured counts a measurement.
func (m *metrics) measured(v Verdict, err error) {
	outcome := "confirmed"
	switch {
	case err != nil:
		outcome = "failed"
	case v == Changed:
		outcome = "changed"
	}
	m.measurements.WithLabelValues(outcome).Inc()
}

func (m *metrics) setStates(counts stateCounts) {
	for _, s := range allStates {
		m.synced.WithLabelValues(s).Set(float64(counts[s]))
	}
	if n, ok := counts[stateShard]; ok {
		m.synced.WithLabelValues(stateShard).Set(float64(n))
	}
}

func (m *metrics) setView(v *View) {
	m.blocks.Set(float64(len(v.Blocks)))
	m.labelSets.Set(float64(len(v.Sets)))
	m.fromDisk.Set(oneIf(v.FromDisk))
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
