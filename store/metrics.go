package store

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the server's. Names under thanos_ are those that Thanos's dashboards and alerts read, with their labels and buckets; names
// under larder_ are larder's own.
type metrics struct {
	blocksLoaded     prometheus.Gauge
	blocksQueried    *prometheus.HistogramVec
	dataFetched      *prometheus.HistogramVec
	dataTouched      *prometheus.HistogramVec
	dataSizeFetched  *prometheus.HistogramVec
	dataSizeTouched  *prometheus.HistogramVec
	resultSeries     *prometheus.HistogramVec
	getAllSeconds    *prometheus.HistogramVec
	mergeSeconds     *prometheus.HistogramVec
	sentChunkBytes   *prometheus.HistogramVec
	emptyPostings    *prometheus.CounterVec
	seriesRefetches  prometheus.Counter
	chunkRefetches   prometheus.Counter
	stageSeconds     *prometheus.HistogramVec
	firstFrame       prometheus.Histogram
	bytesSent        prometheus.Counter
	panics           prometheus.Counter
	corruptRecords   prometheus.Counter
	unknownEncodings *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return f.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  256,
			NativeHistogramMinResetDuration: time.Hour,
		}, labels)
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counts := prometheus.ExponentialBuckets(200, 2, 15)
	sizes := prometheus.ExponentialBuckets(1024, 4, 10)
	seconds := []float64{0.001, 0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120}
	return &metrics{
		blocksLoaded:    f.NewGauge(prometheus.GaugeOpts{Name: "thanos_bucket_store_blocks_loaded", Help: "Blocks that are served."}),
		blocksQueried:   histogram("thanos_bucket_store_series_blocks_queried", "Blocks that a Series request looked at.", []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024}, "tenant"),
		dataFetched:     histogram("thanos_bucket_store_series_data_fetched", "Items of a type that a Series request read from the bucket.", counts, "data_type", "tenant"),
		dataTouched:     histogram("thanos_bucket_store_series_data_touched", "Items of a type that a Series request used.", counts, "data_type", "tenant"),
		dataSizeFetched: histogram("thanos_bucket_store_series_data_size_fetched_bytes", "Bytes of a type that a Series request read from the bucket.", sizes, "data_type", "tenant"),
		dataSizeTouched: histogram("thanos_bucket_store_series_data_size_touched_bytes", "Bytes of a type that a Series request used.", sizes, "data_type", "tenant"),
		resultSeries:    histogram("thanos_bucket_store_series_result_series", "Series in the answer to a Series request.", counts, "tenant"),
		getAllSeconds:   histogram("thanos_bucket_store_series_get_all_duration_seconds", "Time until the postings of all blocks of a Series request were known.", seconds, "tenant"),
		mergeSeconds:    histogram("thanos_bucket_store_series_merge_duration_seconds", "Time that merging and sending the series of a request took.", seconds, "tenant"),
		sentChunkBytes:  histogram("thanos_bucket_store_sent_chunk_size_bytes", "Bytes that a Series request was answered with.", []float64{32, 256, 512, 1024, 32 * 1024, 256 * 1024, 512 * 1024, 1024 * 1024, 32 * 1024 * 1024, 256 * 1024 * 1024, 512 * 1024 * 1024}, "tenant"),
		emptyPostings:   f.NewCounterVec(prometheus.CounterOpts{Name: "thanos_bucket_store_empty_postings_total", Help: "Blocks in which the matchers of a request matched nothing."}, []string{"tenant"}),
		seriesRefetches: counter("thanos_bucket_store_series_refetches_total", "Series entries that were longer than read at first."),
		chunkRefetches:  counter("thanos_bucket_store_chunk_refetches_total", "Chunk records that were longer than read at first."),

		stageSeconds:     histogram("larder_stage_duration_seconds", "Time that a request spent in a stage; stages overlap.", prometheus.ExponentialBuckets(0.0005, 2, 18), "method", "stage"),
		firstFrame:       f.NewHistogram(prometheus.HistogramOpts{Name: "larder_series_first_frame_seconds", Help: "Time from the start of a Series request to its first frame.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18)}),
		bytesSent:        counter("larder_series_sent_bytes_total", "Bytes of Series responses before compression."),
		panics:           counter("larder_request_panics_total", "Panics that were contained to the request that caused them."),
		corruptRecords:   counter("larder_chunk_records_corrupt_total", "Chunk records that did not verify when they were used."),
		unknownEncodings: f.NewCounterVec(prometheus.CounterOpts{Name: "larder_chunk_unknown_encoding_total", Help: "Chunks of an encoding that larder does not know."}, []string{"encoding"}),
	}
}

// observe accounts for a finished request.
func (m *metrics) observe(r *request) {
	for i, name := range stageNames {
		if d := r.stages[i].Load(); d > 0 {
			m.stageSeconds.WithLabelValues(r.method, name).Observe(time.Duration(d).Seconds())
		}
	}
	m.seriesRefetches.Add(float64(r.decoded.FollowUps))
	m.chunkRefetches.Add(float64(r.records.FollowUps))
	if r.method != methodSeries {
		return
	}
	if r.firstFrame > 0 {
		m.firstFrame.Observe(r.firstFrame.Seconds())
	}
	m.bytesSent.Add(float64(r.sent.Bytes))
	m.blocksQueried.WithLabelValues(r.tenant).Observe(float64(r.blocksQueried))
	m.resultSeries.WithLabelValues(r.tenant).Observe(float64(r.sent.Series))
	m.sentChunkBytes.WithLabelValues(r.tenant).Observe(float64(r.sent.Bytes))
	m.getAllSeconds.WithLabelValues(r.tenant).Observe(time.Duration(r.stages[stagePostings].Load()).Seconds())
	m.mergeSeconds.WithLabelValues(r.tenant).Observe((time.Since(r.start) - time.Duration(r.stages[stageGate].Load()+r.stages[stagePostings].Load())).Seconds())
	items := [...]int64{int64(r.planned.Lists), r.decoded.Entries, r.records.Records}
	for i, k := range r.kinds() {
		m.dataTouched.WithLabelValues(k.name, r.tenant).Observe(float64(items[i]))
		m.dataFetched.WithLabelValues(k.name, r.tenant).Observe(float64(k.acct.Fetched.Load()))
		m.dataSizeTouched.WithLabelValues(k.name, r.tenant).Observe(float64(k.acct.TouchedBytes.Load()))
		m.dataSizeFetched.WithLabelValues(k.name, r.tenant).Observe(float64(k.acct.FetchedBytes.Load()))
	}
}
